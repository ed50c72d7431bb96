// What the pages show of a socket: its state, and the response by which a handshake was denied.
//
// A script never sees the response to a handshake: to it, a 403 and a pulled plug look the same. GuardedWebSocket
// asks the address of the socket for the reason, waits, and tries again where that makes sense.

import { GuardedWebSocket } from "../channels_wsdeny/wsdeny.js";

const [state, reason] = document.querySelectorAll("#state, #reason");
const details = document.getElementById("details");
const [heading, text] = details.children;

export function showState(name, why = "") {
  state.textContent = state.dataset.state = name;
  reason.textContent = why;
}

// Only ever textContent: whatever a server or people write stays text.
export function showDetails(title = "", content = "") {
  details.hidden = !content;
  heading.textContent = title;
  text.textContent = content;
}

// Show the response by which a handshake was denied: a plain GET of the socket's address gets the same.
export async function showDenial(url, { token, ticket } = {}) {
  const accept = { Accept: "application/problem+json" };
  const headers = token ? { ...accept, Authorization: `Bearer ${token()}` } : accept;
  const address = ticket ? `${url}?ticket=${await ticket(url)}` : url;
  const response = await fetch(address, { headers, cache: "no-store" });
  if (response.status === 426) return; // By now the socket would be allowed.
  const lines = [`HTTP ${response.status}`, ...[...response.headers].map((pair) => pair.join(": "))];
  showDetails("The denial, as curl sees it", [...lines, "", await response.text()].join("\n"));
}

// Open the socket of the page. `receive` gets each event, `change` each state.
export function openSocket(receive, change = () => {}) {
  const url = document.querySelector("main").dataset.socket;
  const socket = new GuardedWebSocket(url);
  let isOpen = false;
  const show = (name, why) => {
    showState(name, why);
    change(name);
  };
  socket.onopen = () => {
    isOpen = true;
    showDetails();
    show("connected");
  };
  socket.onmessage = ({ data }) => receive(JSON.parse(data));
  socket.ondenied = () => isOpen || showDenial(url);
  socket.onretry = ({ problem, delay }) => {
    isOpen = false;
    show("disconnected", `${problem?.detail ?? "The connection was lost."} Next try in ${Math.ceil(delay)} s.`);
  };
  socket.onclose = ({ code, problem }) => {
    const how = `The socket was closed with ${[code, problem?.code].filter(Boolean).join(", ")}.`;
    if (!problem) show("closed", how);
    else if (isOpen) show("ended", `${problem.detail ?? "Your access has ended."} ${how}`);
    else show("denied", problem.detail);
  };
  return socket;
}
