// Opens the page's socket, shows what comes through it, and says why when it is denied.
//
// A script never sees the status of a handshake: to it, a 403 and a pulled plug look the same. The module asks the
// address of the socket for the reason, waits, and tries again where that makes sense.

import { GuardedWebSocket } from "../channels_wsdeny/wsdeny.js";

const chat = document.getElementById("chat");
const state = document.getElementById("state");
const reason = document.getElementById("reason");
const denial = document.getElementById("denial");
const log = document.getElementById("log");
const error = document.getElementById("error");
const compose = document.getElementById("compose"); // The monitor has none.

const socket = new GuardedWebSocket(chat.dataset.socket);
socket.onopen = () => {
  show("connected");
  compose?.text.focus();
};
socket.onmessage = ({ data }) => receive(JSON.parse(data));
socket.onretry = ({ problem, delay }) =>
  show("disconnected", `${problem?.detail ?? "The connection was lost."} Next try in ${Math.ceil(delay)} s.`, problem);
socket.onclose = ({ problem, code }) =>
  problem ? show("denied", problem.detail ?? "", problem) : show("closed", `The server has closed it (${code}).`);

function show(name, text = "", problem = undefined) {
  state.textContent = state.dataset.state = name;
  reason.textContent = text;
  for (const control of compose?.elements ?? []) control.disabled = name !== "connected";
  denial.hidden = !problem;
  for (const member of denial.querySelectorAll("[data-member]"))
    member.textContent = problem?.[member.dataset.member] ?? "–";
}

function receive(event) {
  error.textContent = "";
  if (event.type === "history") event.messages.forEach(addMessage);
  if (event.type === "message") addMessage(event);
  if (event.type === "joined" || event.type === "left") addLine(event, event.type);
  if (event.type === "error") error.textContent = event.detail;
}

function addMessage(event) {
  const id = `message-${event.id}`;
  if (!document.getElementById(id)) addLine(event, event.text).id = id;
}

// Only ever textContent: whatever people write stays text.
function addLine(event, text) {
  const line = document.createElement("li");
  line.className = event.type;
  const time = document.createElement("time");
  const date = event.sent_at ? new Date(event.sent_at) : new Date();
  time.dateTime = date.toISOString();
  time.textContent = date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  const author = document.createElement("strong");
  author.textContent = compose ? event.author : `${event.author} @ ${event.room}`;
  const body = document.createElement("span");
  body.textContent = text;
  line.append(time, author, body);
  log.append(line);
  log.scrollTop = log.scrollHeight;
  return line;
}

compose?.addEventListener("submit", (event) => {
  event.preventDefault();
  socket.send(JSON.stringify({ text: compose.text.value }));
  compose.reset();
});
