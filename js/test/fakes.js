// What a test puts in place of the browser's WebSocket, fetch and timers, and a log of what happened.

import { afterEach, beforeEach } from "node:test";
import { GuardedWebSocket } from "../wsdeny.js";

const real = { setTimeout, clearTimeout, fetch: globalThis.fetch, WebSocket: globalThis.WebSocket, random: Math.random };

export const turn = () => new Promise((resolve) => setImmediate(resolve));

/** Everything of one test: sockets that were made, questions that were asked, pauses that are waited for. */
export let world;

class FakeSocket {
  static refuses = false;
  readyState = 0;
  sent = [];
  constructor(url, protocols) {
    if (FakeSocket.refuses) throw new DOMException("bad subprotocol", "SyntaxError");
    Object.assign(this, { url: String(url), protocols, protocol: protocols[0] ?? "", extensions: "", bufferedAmount: 7 });
    world.sockets.push(this);
  }
  open() {
    this.readyState = 1;
    this.onopen();
  }
  fail() {
    this.onerror();
    this.end(1006);
  }
  end(code, reason = "", wasClean = code != 1006) {
    this.readyState = 3;
    this.onclose({ code, reason, wasClean });
  }
  send(data) {
    this.sent.push(data);
  }
  close(...given) {
    this.closed = given;
  }
}

beforeEach(() => {
  FakeSocket.refuses = false;
  world = { sockets: [], asked: [], answers: [], timers: new Map(), now: 0, number: 0 };
  globalThis.WebSocket = FakeSocket;
  globalThis.fetch = async (url, options) => {
    world.asked.push({ url: String(url), ...options });
    const answer = world.answers.shift() ?? new TypeError("Failed to fetch");
    if (answer === "hang")
      return new Promise((_, reject) => options.signal.addEventListener("abort", () => reject(options.signal.reason)));
    if (answer instanceof Error) throw answer;
    return answer;
  };
  globalThis.setTimeout = (run, ms = 0) => {
    world.timers.set(++world.number, { run, ms });
    return world.number;
  };
  globalThis.clearTimeout = (id) => world.timers.delete(id);
  Math.random = () => 0.5;
  Object.defineProperty(globalThis.performance, "now", { value: () => world.now, configurable: true });
});

afterEach(() => {
  Object.assign(globalThis, { setTimeout: real.setTimeout, clearTimeout: real.clearTimeout });
  Object.assign(globalThis, { fetch: real.fetch, WebSocket: real.WebSocket });
  Math.random = real.random;
});

export const refuse = () => (FakeSocket.refuses = true);

/** The timers that are waited for, in milliseconds. */
export const waits = () => [...world.timers.values()].map(({ ms }) => ms);

/** Have every timer fire. */
export async function elapse() {
  const due = [...world.timers.values()];
  world.timers.clear();
  for (const { run } of due) run();
  await turn();
}

/** What the server answers to a question. */
export function denial(status, body = {}, headers = {}) {
  const text = typeof body == "string" ? body : JSON.stringify({ status, retry: false, ...body });
  return new Response(text, { status, headers });
}

/** A socket, the log of its events, and the newest of the sockets in it. */
export async function make(options = {}, url = "ws://site.example/ws/?a=1", protocols = []) {
  const socket = new GuardedWebSocket(url, protocols, options);
  const log = [];
  for (const type of ["open", "message", "denied", "retry", "error", "close"])
    socket.addEventListener(type, (event) => log.push({ ...event, type }));
  await turn();
  return { socket, log, last: () => world.sockets.at(-1), types: () => log.map(({ type }) => type).join(" ") };
}

/** A socket whose first handshake was answered by `answer`. */
export async function denied(answer, options, ...rest) {
  const made = await make(options, ...rest);
  world.answers.push(answer);
  made.last().fail();
  await turn();
  await turn();
  return made;
}

/** A socket that was open and got this close. */
export async function closed(code, reason, options) {
  const made = await make(options);
  made.last().open();
  made.last().end(code, reason);
  await turn();
  return made;
}
