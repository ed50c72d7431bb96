// channels-wsdeny 0.1.0, BSD-3-Clause: a WebSocket that learns why it was denied, and tries again where that makes
// sense. Its types, in wsdeny.d.ts, say what the names mean.

const [CONNECTING, OPEN, CLOSING, CLOSED] = [0, 1, 2, 3];
// After these the same socket may open again: the server or the connection was lost, or had too much to do.
const PASSING_CODES = [1001, 1006, 1011, 1012, 1013, 1014];
const PASSING_STATUSES = [408, 425, 429]; // as has any of 500 and above
const SHORTEST = 0.1; // seconds between two tries, whatever the options say
const LONGEST = 2147483; // what setTimeout can wait; it fires at once for more
const STABLE = 10000; // ms after which an open socket was a success

const valueOf = (given) => (typeof given == "function" ? given() : given);

const isSeconds = (retry) => typeof retry == "number" && retry >= 0;

// Of a Retry-After header (RFC 9110 section 10.2.3).
const secondsOf = (header) =>
  /^\d+$/.test(header) ? +header : Math.max(0, Date.parse(header) - Date.now()) / 1000;

function parse(given) {
  const url = new URL(given, globalThis.location?.href);
  url.protocol = url.protocol.replace("http", "ws");
  url.hash = "";
  return url;
}

// What a close stands for: 4000 + status, with `code`, `code;retry=N` or a text as its reason.
function problemOf(close) {
  const status = close.code - 4000;
  if (!(status >= 300 && status < 600)) return;
  const [, code, retry] = /^(\w+)(?:;retry=(\d+))?$/.exec(close.reason) ?? [];
  return { status, code, detail: code ? undefined : close.reason, retry: retry && +retry };
}

export class GuardedWebSocket extends EventTarget {
  #state = CONNECTING;
  #binaryType = "blob";
  #tries = 0;
  #url;
  #protocols;
  #options;
  #href = "";
  #socket;
  #timer;
  #asking;

  constructor(url, protocols = [], options = {}) {
    super();
    if (typeof url != "function") this.#href = parse(url).href;
    this.#url = url;
    this.#protocols = protocols;
    this.#options = options;
    for (const type of ["open", "message", "denied", "retry", "error", "close"]) {
      this["on" + type] = null;
      this.addEventListener(type, (event) => this["on" + type]?.(event));
    }
    this.#connect();
  }

  get readyState() { return this.#state; }
  get url() { return this.#href; }
  get protocol() { return this.#socket?.protocol ?? ""; }
  get extensions() { return this.#socket?.extensions ?? ""; }
  get bufferedAmount() { return this.#socket?.bufferedAmount ?? 0; }
  get binaryType() { return this.#binaryType; }
  set binaryType(type) {
    this.#binaryType = type;
    if (this.#socket) this.#socket.binaryType = type;
  }

  send(data) {
    if (this.#state == CONNECTING) throw new DOMException("Not open yet.", "InvalidStateError");
    this.#socket?.send(data);
  }

  close(code = 1000, reason = "") {
    if (code != 1000 && !(code >= 3000 && code < 5000)) throw new DOMException(code, "InvalidAccessError");
    if (this.#state > OPEN) return;
    if (this.#socket) this.#socket.close(code, reason);
    else setTimeout(() => this.#end({ code, reason, wasClean: true }));
    this.#state = CLOSING;
    clearTimeout(this.#timer);
    this.#asking?.abort();
  }

  // What one try needs, with a fresh ticket or token.
  async #address() {
    const { ticket, token } = this.#options;
    const headers = { Accept: "application/problem+json" };
    const url = parse(await valueOf(this.#url));
    const protocols = [].concat((await valueOf(this.#protocols)) ?? []);
    this.#href = url.href;
    if (ticket) url.search += (url.search && "&") + "ticket=" + encodeURIComponent(await ticket(url.href));
    if (token) {
      const secret = await token();
      protocols.unshift("bearer", secret);
      headers.Authorization = "Bearer " + secret;
    }
    return { url, protocols, headers };
  }

  async #connect() {
    let address, socket, opened;
    try {
      address = await this.#address();
      if (this.#state > OPEN) return;
      socket = this.#socket = new WebSocket(address.url, address.protocols);
    } catch (error) {
      if (this.#state > OPEN) return;
      this.#emit("error", { error });
      // An address that WebSocket refuses is no better the next time.
      return this.#decide({ code: 1006, reason: "" }, error?.status && error, address);
    }
    socket.binaryType = this.#binaryType;
    socket.onopen = () => {
      opened = performance.now();
      this.#state = OPEN;
      this.#emit("open");
    };
    socket.onmessage = ({ data, origin }) => this.dispatchEvent(new MessageEvent("message", { data, origin }));
    socket.onerror = () => this.#emit("error");
    socket.onclose = async ({ code, reason, wasClean }) => {
      const close = { code, reason, wasClean };
      this.#socket = undefined;
      if (this.#state > OPEN) return this.#end(close);
      this.#state = CONNECTING;
      if (performance.now() - opened > STABLE) this.#tries = 0;
      if (opened == null) this.#decide(close, await this.#ask());
      else this.#decide(close, problemOf(close), !PASSING_CODES.includes(code));
    };
  }

  // Why a handshake failed: only a plain GET of its address can see that. Undefined if it cannot be told.
  async #ask() {
    const { ticket, token, explain = true, credentials = ticket || token ? "same-origin" : "include" } = this.#options;
    if (!explain) return;
    const asking = (this.#asking = new AbortController());
    const timer = setTimeout(() => asking.abort(), 10000);
    try {
      const { url, headers } = await this.#address();
      url.protocol = url.protocol.replace("ws", "http");
      const { signal } = asking;
      const response = await fetch(url, { headers, credentials, signal, cache: "no-store", redirect: "manual" });
      if (response.ok || response.status == 426) return; // The socket would be allowed.
      const body = await response.json().catch(() => {});
      const problem = { title: response.statusText, ...(typeof body == "object" && body) };
      problem.status = response.status || 302; // Which redirect it is, a script does not see.
      if (!isSeconds(problem.retry)) problem.retry = secondsOf(response.headers.get("Retry-After")) || problem.retry;
      return problem;
    } catch (error) {
      return error?.status && error; // of ticket() or token(), if that is a problem
    } finally {
      clearTimeout(timer);
    }
  }

  // End, or try again after a pause.
  #decide(close, problem, isOver) {
    if (this.#state > OPEN) return;
    if (problem) {
      const { status, code, retry } = problem;
      isOver = !isSeconds(retry) && status < 500 && (retry === false || !PASSING_STATUSES.includes(status));
      if (close.code == 1006) close = { code: 4000 + status, reason: code ?? "" };
      this.#emit("denied", { problem });
      if (this.#state > OPEN) return; // A listener has closed it.
    }
    const { tries = Infinity, minDelay = 1, maxDelay = 30 } = this.#options;
    if (isOver || this.#tries >= tries) return this.#end({ wasClean: false, ...close, problem });
    // Full jitter: otherwise all pages that lost the server would come back in step.
    const spread = Math.random() * Math.min(maxDelay, minDelay * 2 ** this.#tries++);
    const asked = isSeconds(problem?.retry) ? problem.retry : 0;
    const delay = Math.min(LONGEST, Math.max(SHORTEST, asked + (spread || 0)));
    this.#timer = setTimeout(() => this.#connect(), delay * 1000);
    this.#emit("retry", { ...close, problem, delay, tries: this.#tries });
  }

  #end(close) {
    this.#state = CLOSED;
    this.#emit("close", close);
  }

  #emit(type, members) {
    this.dispatchEvent(Object.assign(new Event(type), members));
  }
}

for (const target of [GuardedWebSocket, GuardedWebSocket.prototype])
  Object.assign(target, { CONNECTING, OPEN, CLOSING, CLOSED });

export default GuardedWebSocket;
