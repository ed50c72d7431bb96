// Opens the page's socket, shows what comes through it, and says why when it is refused.
//
// A script never sees the status of a handshake: to it, a 403 and a pulled plug look the same. So
// when the socket closes, the reason comes from a view that the same permission guards.

const chat = document.getElementById("chat");
const state = document.getElementById("state");
const reason = document.getElementById("reason");
const log = document.getElementById("log");
const error = document.getElementById("error");
const compose = document.getElementById("compose"); // The monitor has none.

let socket;
let attempts = 0;

function show(name, text = "") {
  state.textContent = state.dataset.state = name;
  reason.textContent = text;
  for (const control of compose?.elements ?? []) control.disabled = name !== "connected";
}

function connect() {
  show("connecting");
  socket = new WebSocket(location.origin.replace(/^http/, "ws") + chat.dataset.socket);
  socket.onopen = () => {
    attempts = 0;
    show("connected");
    compose?.text.focus();
  };
  socket.onmessage = ({ data }) => receive(JSON.parse(data));
  socket.onclose = explain;
}

async function explain() {
  let response;
  try {
    response = await fetch(chat.dataset.access, {
      headers: { Accept: "application/problem+json, application/json" },
    });
  } catch {
    return retry("The server cannot be reached.");
  }
  if (response.ok) return retry("The connection was lost.");
  const problem = await response.json().catch(() => ({}));
  const why = `${response.status} ${problem.title ?? response.statusText}: ${problem.detail ?? ""}`;
  const passing = response.status === 429 || response.status >= 500;
  return passing ? retry(why) : show("refused", why);
}

function retry(why) {
  const seconds = Math.min(2 ** attempts++, 30);
  show("disconnected", `${why} Next try in ${seconds} s.`);
  setTimeout(connect, seconds * 1000);
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

connect();
