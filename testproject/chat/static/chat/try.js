// A socket for each button, closed again once it has got a message, and what came of it.

import { GuardedWebSocket } from "../channels_wsdeny/wsdeny.js";
import { showDenial, showDetails, showState } from "./socket.js";

const form = document.getElementById("try");
const LOBBY = "/ws/rooms/lobby/";
const ATTEMPTS = {
  session: [LOBBY],
  token: [LOBBY, { token: () => form.token.value }],
  ticket: [LOBBY, { ticket }],
  throttled: ["/ws/knock/"],
  unrouted: ["/ws/nowhere/"],
};
let current;

showState("ready", "Press a button.");

form.addEventListener("submit", (event) => {
  event.preventDefault();
  current?.close();
  const [url, options] = ATTEMPTS[event.submitter.value];
  const socket = (current = new GuardedWebSocket(url, [], { ...options, tries: 0 }));
  const whileCurrent = (handle) => (event) => socket === current && handle(event);
  showDetails();
  showState("connecting");
  socket.onopen = whileCurrent(() => showState("accepted", "By a 101. This page closes it again."));
  socket.onmessage = whileCurrent(({ data }) => {
    showDetails("The first message", data);
    socket.close();
  });
  socket.ondenied = whileCurrent(() =>
    showDenial(url, options).catch((problem) => showDetails("Why there is no ticket", JSON.stringify(problem, null, 2))),
  );
  socket.onclose = whileCurrent(({ problem, code }) => {
    if (problem) showState("denied", problem.detail);
    else if (code === 1006) showState("closed", "The server does not answer.");
  });
});

// A ticket for one handshake at this address. It is for users who are logged in.
async function ticket(path) {
  const body = new URLSearchParams({ path, csrfmiddlewaretoken: form.csrfmiddlewaretoken.value });
  const response = await fetch("/ticket/", { method: "POST", body });
  if (!response.ok) throw await response.json();
  return (await response.json()).ticket;
}
