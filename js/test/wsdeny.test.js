// The module's decisions, with a WebSocket, fetch and timers that the tests hold in their hands.

import assert from "node:assert/strict";
import { test } from "node:test";
import { GuardedWebSocket } from "../wsdeny.js";
import { closed, denial, denied, elapse, make, refuse, turn, waits, world } from "./fakes.js";

const unhandled = [];
process.on("unhandledRejection", (reason) => unhandled.push(reason));
const equal = assert.deepEqual;

// As a WebSocket

test("it has the shape of a WebSocket, and passes on what the open one does", async () => {
  const { socket, last, types, log } = await make({}, "https://site.example/ws/#top", ["chat"]);
  const order = [];
  socket.onmessage = () => order.push("on");
  socket.addEventListener("message", () => order.push("listener"));
  equal([GuardedWebSocket.CLOSED, socket.CLOSED, socket.readyState, socket.url], [3, 3, 0, "wss://site.example/ws/"]);
  assert.throws(() => socket.send("early"), { name: "InvalidStateError" });
  socket.binaryType = "arraybuffer";
  last().open();
  socket.send("hello");
  last().onmessage({ data: "there", origin: "wss://site.example" });
  equal([last().binaryType, last().sent, socket.protocol, socket.bufferedAmount], ["arraybuffer", ["hello"], "chat", 7]);
  equal([types(), log[1].type, socket.readyState, order], ["open message", "message", 1, ["on", "listener"]]);
  assert.throws(() => new GuardedWebSocket("http://["), TypeError);
});

test("close() passes on what it is given, and ends it when the open socket says so", async () => {
  const { socket, last, log } = await make();
  last().open();
  assert.throws(() => socket.close(1001), { name: "InvalidAccessError" });
  socket.close(4000, "bye");
  socket.close(4001);
  equal([socket.readyState, last().closed, log.length], [2, [4000, "bye"], 1]);
  last().end(4000, "bye");
  equal([socket.readyState, log[1].code, log[1].reason, log[1].wasClean, waits()], [3, 4000, "bye", true, []]);
  socket.send("late");
});

// Why a handshake failed

test("it asks the address of the socket, and ends with the problem", async () => {
  const problem = { code: "not_authenticated", detail: "You need to log in first.", title: "Unauthorized" };
  const { types, log, socket } = await denied(denial(401, problem));
  const [{ url, headers, credentials, redirect, cache }] = world.asked;
  equal([url, headers], ["http://site.example/ws/?a=1", { Accept: "application/problem+json" }]);
  equal([credentials, redirect, cache], ["include", "manual", "no-store"]);
  equal(types(), "error denied close");
  equal(log[1].problem, { status: 401, retry: false, ...problem });
  equal([log[2].code, log[2].reason, log[2].wasClean, log[2].problem], [4401, "not_authenticated", false, log[1].problem]);
  equal([socket.readyState, world.sockets.length, waits()], [3, 1, []]);
});

test("what is no problem body is understood by its status and Retry-After", async () => {
  for (const body of ["<p>", "[]", "null", '"text"', '{"retry": "soon"}']) {
    const { log } = await denied(denial(403, body));
    equal([log[1].problem.status, Object.keys(log[1].problem).length, log[2].type], [403, 3, "close"], body);
  }
  const { log } = await denied(denial(403, "<p>", { "Retry-After": "60" }));
  equal([log[2].type, log[2].delay, log[2].problem.retry], ["retry", 60.5, 60]);
  const late = new Date(Date.now() + 90_000).toUTCString();
  const dated = await denied(denial(503, "", { "Retry-After": late }));
  assert.ok(dated.log[2].delay > 60 && dated.log[2].delay < 91, dated.log[2].delay);
  const redirect = Object.defineProperty(denial(403, ""), "status", { value: 0 });
  equal((await denied(redirect)).log[2].code, 4302);
});

test("it tells terminal from passing denials by retry, else by the status", async () => {
  const table = [
    [403, { retry: false }, "close"],
    [403, { retry: 3 }, 3.5],
    [404, { retry: undefined }, "close"],
    [429, { retry: 7 }, 7.5],
    [429, { retry: undefined }, 0.5],
    [429, { retry: false }, "close"],
    [500, { retry: false }, 0.5],
    [503, { retry: 5 }, 5.5],
    [503, { retry: -5 }, 0.5],
    [403, { retry: "5" }, "close"],
    [503, { retry: 1e12 }, 2147483],
  ];
  for (const [status, body, expected] of table) {
    const { log } = await denied(denial(status, body));
    equal(log[2].delay ?? log[2].type, expected, `${status} ${JSON.stringify(body)}`);
  }
});

test("it tries again where the reason cannot be told", async () => {
  for (const answer of [denial(426), new Response("page"), new TypeError("offline")]) {
    const { types, log } = await denied(answer);
    equal([types(), log[1].code, log[1].problem, log[1].delay], ["error retry", 1006, undefined, 0.5]);
  }
  const { types } = await denied(denial(403), { explain: false });
  equal([types(), world.asked.length], ["error retry", 3]);
});

test("a question that is not answered is given up", async () => {
  const { types } = await denied("hang");
  equal([types(), waits()], ["error", [10_000]]);
  await elapse();
  equal(types(), "error retry");
});

// Closes

test("it stops on closes that stand for a denial, and resumes after those of a lost server", async () => {
  for (const code of [4401, 4403, 4404, 4499, 4302, 1000, 1002, 1005, 1008, 1009, 3000, 4000, 4001, 4999]) {
    equal((await closed(code, "")).types().split(" ").at(-1), "close", code);
    equal(waits(), []);
  }
  for (const code of [1001, 1006, 1011, 1012, 1013, 1014, 4408, 4429, 4500, 4503]) {
    const { types, socket } = await closed(code, "");
    equal([types().split(" ").at(-1), socket.readyState], ["retry", 0], code);
  }
  equal(world.asked, []);
});

test("the reason of a close is a code, perhaps with the seconds to wait, or a text", async () => {
  const problems = [
    [4401, "not_authenticated", { status: 401, code: "not_authenticated", detail: undefined, retry: undefined }],
    [4503, "unavailable;retry=5", { status: 503, code: "unavailable", detail: undefined, retry: 5 }],
    [4403, "It is over.", { status: 403, code: undefined, detail: "It is over.", retry: undefined }],
    [4000, "mine", undefined],
  ];
  for (const [code, reason, problem] of problems) {
    const { log } = await closed(code, reason);
    equal([log.at(-1).code, log.at(-1).reason, log.at(-1).problem], [code, reason, problem]);
  }
  equal((await closed(4403, "busy;retry=9")).log.at(-1).delay, 9.5);
});

// Pauses

test("pauses grow with full jitter up to their longest, and begin anew after a socket that has lasted", async () => {
  const { log, last } = await make({ minDelay: 2, maxDelay: 9 });
  const pauses = () => log.filter(({ type }) => type == "retry").map(({ delay }) => delay);
  for (let number = 0; number < 4; number++) {
    last().open();
    last().end(1006);
    await turn();
    equal(waits(), [pauses().at(-1) * 1000]);
    await elapse();
  }
  equal(pauses(), [1, 2, 4, 4.5]);
  last().open();
  world.now += 10_001;
  last().end(1012);
  await turn();
  equal([pauses().at(-1), log.at(-1).tries], [1, 1]);
});

test("there is no tight loop, whatever the options and the server say", async () => {
  Math.random = () => 0;
  for (const options of [{}, { minDelay: 0 }, { maxDelay: 0 }, { minDelay: -1 }, { minDelay: NaN }, { maxDelay: "x" }])
    equal((await denied(denial(503, { retry: 0 }), options)).log[2].delay, 0.1, JSON.stringify(options));
  equal((await denied(denial(503, { retry: 5 }), { maxDelay: "x" })).log[2].delay, 5);
});

test("it ends after so many failed tries as it may make", async () => {
  const { types, last } = await make({ tries: 1 });
  for (let number = 0; number < 2; number++) {
    last().open();
    last().end(1006);
    await turn();
    await elapse();
  }
  equal(types(), "open retry open close");
});

// Tickets, tokens, functions

test("each request has a ticket of its own, and url does not show it", async () => {
  let number = 0;
  const { socket } = await denied(denial(503, { retry: 1 }), { ticket: async () => `t&${++number}` });
  await elapse();
  equal(world.sockets.map(({ url }) => url), ["?a=1&ticket=t%261", "?a=1&ticket=t%263"].map((end) => `ws://site.example/ws/${end}`));
  equal([world.asked[0].url, world.asked[0].credentials], ["http://site.example/ws/?a=1&ticket=t%262", "same-origin"]);
  equal(socket.url, "ws://site.example/ws/?a=1");
  await make({ ticket: (url) => url }, "ws://site.example/");
  equal(decodeURIComponent(world.sockets.at(-1).url), "ws://site.example/?ticket=ws://site.example/");
});

test("a token is a subprotocol and a header, never a part of an address", async () => {
  await denied(denial(401), { token: () => "secret" }, undefined, "chat");
  equal(world.sockets[0].protocols, ["bearer", "secret", "chat"]);
  equal(world.asked[0].headers.Authorization, "Bearer secret");
  assert.ok(![world.sockets[0].url, world.asked[0].url].join().includes("secret"));
});

test("address and subprotocols may be functions, called for each try", async () => {
  let number = 0;
  const { last, socket } = await make({}, async () => `ws://site.example/${++number}/`, () => [`v${number}`]);
  last().open();
  socket.binaryType = "arraybuffer";
  last().end(1012);
  await turn();
  await elapse();
  equal(last().binaryType, "arraybuffer");
  equal([last().url, last().protocols, socket.url], ["ws://site.example/2/", ["v2"], "ws://site.example/2/"]);
});

test("what a function throws is told, and tried again unless it is a terminal problem", async () => {
  const lost = new TypeError("Failed to fetch");
  const { log, types } = await make({ ticket: async () => Promise.reject(lost) });
  equal([types(), log[0].error], ["error retry", lost]);
  const thrown = () => { throw lost; };
  equal((await make({}, thrown)).types(), "error retry");
  const problem = { status: 401, code: "not_authenticated", retry: false };
  const ended = await make({ token: () => Promise.reject(problem) });
  equal([ended.types(), ended.log[2].code, ended.log[2].problem], ["error denied close", 4401, problem]);
  let calls = 0;
  const later = await denied(undefined, { ticket: () => (++calls == 1 ? "t" : Promise.reject(problem)) });
  equal([later.types(), later.log[2].problem, world.asked], ["error denied close", problem, []]);
  const nothing = await make({ ticket: () => Promise.reject() });
  equal(nothing.types(), "error retry");
});

test("what WebSocket refuses is not tried again", async () => {
  refuse();
  const { log, types } = await make();
  equal([types(), log[0].error.name, log[1].code, waits()], ["error close", "SyntaxError", 1006, []]);
});

// Closed meanwhile

test("close() during a pause, a question or a ticket ends it at once, and nothing comes after it", async () => {
  let settle;
  const pending = (resolve, reject) => (settle = () => (settle.fails ? reject(new Error("late")) : resolve("t")));
  const ticket = () => new Promise(pending);
  const situations = {
    pause: () => denied(denial(503)),
    question: () => denied("hang"),
    ticket: () => make({ ticket }),
    "ticket that fails": () => make({ ticket }),
  };
  for (const [name, begin] of Object.entries(situations)) {
    const { socket, log, types } = await begin();
    const [happened, sockets] = [types(), world.sockets.length];
    if (settle) settle.fails = name.includes("fails");
    socket.close(3001, "done");
    settle?.();
    await turn();
    equal([socket.readyState, types(), waits()], [2, happened, [0]], name);
    await elapse();
    equal([socket.readyState, types(), waits()], [3, `${happened} close`.trim(), []], name);
    equal([log.at(-1).code, log.at(-1).reason, world.sockets.length], [3001, "done", sockets], name);
  }
});

test("close() during a handshake ends it without a question, and a listener may call it", async () => {
  const { socket, last, types } = await make();
  socket.close();
  equal(last().closed, [1000, ""]);
  last().fail();
  equal([types(), socket.readyState], ["error close", 3]);
  const expected = { denied: "denied close", retry: "retry close", error: "error close", open: "open error close" };
  for (const type of Object.keys(expected)) {
    const made = await make();
    made.socket.addEventListener(type, () => made.socket.close());
    world.answers.push(denial(503));
    if (type == "open") made.last().open();
    made.last().fail();
    await turn();
    await elapse();
    equal([made.socket.readyState, waits(), made.types().match(new RegExp(`${type} .*`))[0]], [3, [], expected[type]]);
  }
  equal(world.asked.length, 2);
});

test("whatever happens in whatever order, there is one socket at a time, one close at most, and nothing after it", async () => {
  let seed = 1;
  const random = (below) => (seed = (seed * 48271) % 2147483647) % below;
  const pick = (...from) => from[random(from.length)];
  for (let run = 0; run < 500; run++) {
    world.sockets.length = 0;
    world.timers.clear();
    const happened = [];
    const ticket = () => pick(() => "t", async () => "t", () => Promise.reject(denial(pick(401, 503))), () => { throw 1; })();
    const { socket, log } = await make(pick({}, { ticket }, { token: ticket }, { explain: false }, { tries: 2 }));
    if (random(2)) socket.addEventListener(pick("open", "retry", "denied", "error", "close"), () => socket.close());
    for (let step = 0; step < 12; step++) {
      const live = world.sockets.filter(({ readyState }) => readyState < 3);
      const action = pick("open", "fail", "end", "close", "elapse", "turn", "message");
      happened.push(action);
      world.answers = [pick("hang", denial(pick(401, 426, 429, 503)), new TypeError("offline"))];
      if (action == "open" && live[0]?.readyState === 0) live[0].open();
      else if (action == "fail" && live[0]?.readyState === 0) live[0].fail();
      else if (action == "end" && live[0]?.readyState == 1) live[0].end(pick(1000, 1006, 1012, 4401, 4429, 4503), pick("", "a;retry=1"));
      else if (action == "message" && live[0]?.readyState == 1) live[0].onmessage({ data: "", origin: "" });
      else if (action == "close" && !random(4)) socket.close();
      else if (action == "elapse") await elapse();
      await turn();
      const closes = log.filter(({ type }) => type == "close").length;
      assert.ok(world.sockets.filter(({ readyState }) => readyState < 3).length <= 1, happened.join());
      assert.ok(closes <= 1 && (!closes || log.at(-1).type == "close"), `${happened}: ${log.map(({ type }) => type)}`);
      equal(closes == 1, socket.readyState == 3, happened.join());
      for (const { type, delay } of log) assert.ok(type != "retry" || delay >= 0.1);
    }
  }
});

test("no rejection was left unhandled", async () => {
  await turn();
  equal(unhandled, []);
});
