// A room: its messages as they come, and a form for one's own.

import { openSocket } from "./socket.js";

const log = document.getElementById("log");
const error = document.getElementById("error");
const compose = document.getElementById("compose");

const socket = openSocket(receive, (state) => {
  for (const control of compose.elements) control.disabled = state !== "connected";
  if (state === "connected") compose.text.focus();
});

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
  author.textContent = event.author;
  const body = document.createElement("span");
  body.textContent = text;
  line.append(time, author, body);
  log.append(line);
  log.scrollTop = log.scrollHeight;
  return line;
}

compose.addEventListener("submit", (event) => {
  event.preventDefault();
  socket.send(JSON.stringify({ text: compose.text.value }));
  compose.reset();
});
