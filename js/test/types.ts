// What the types allow, and in lines marked so, what they refuse.

import GuardedSocket, { GuardedWebSocket, type GuardedWebSocketOptions, type Problem } from "channels-wsdeny";

const options: GuardedWebSocketOptions = {
  ticket: async (url) => url.toLowerCase(),
  token: () => "token",
  credentials: "omit",
  tries: 5,
  minDelay: 1,
  maxDelay: 60,
};
const socket: GuardedWebSocket = new GuardedSocket("/ws/chat/", ["chat"], options);
new GuardedWebSocket(async () => new URL("wss://site.example/"), () => "chat");

socket.addEventListener("denied", ({ problem }) => {
  const status: number = problem.status;
  const detail: string | undefined = problem.detail;
  const other: unknown = problem.wait;
});
socket.onretry = ({ delay, tries, code, reason, problem }) => delay + tries + code + reason.length + (problem?.status ?? 0);
socket.onclose = (event) => {
  const problem: Problem | undefined = event.problem;
  return event.wasClean && event.code == 1000 && problem?.retry === false;
};
socket.addEventListener("message", (event) => JSON.parse(event.data), { once: true });
socket.send(new Uint8Array(2));
socket.close(4000, "bye");

// What takes a WebSocket of the browser's by what it does takes this one.
const shape: Pick<WebSocket, "binaryType" | "bufferedAmount" | "close" | "protocol" | "readyState" | "send" | "url"> =
  socket;
if (socket.readyState === GuardedWebSocket.OPEN) shape.close();

// @ts-expect-error: numbers are no addresses.
new GuardedWebSocket(1);
// @ts-expect-error: the option is misspelt.
new GuardedWebSocket("/ws/", [], { tickets: () => "ticket" });
// @ts-expect-error: only the module sets it.
socket.readyState = 1;
