/** Why a handshake was denied, or a socket closed: the members of a problem body (RFC 9457). */
export interface Problem {
  /** The HTTP status of the denial: 300 to 599. Of a redirect it is 302, whichever it is. */
  status: number;
  /** The machine-readable reason, such as `not_authenticated`. */
  code?: string;
  title?: string;
  /** A text for people. */
  detail?: string;
  /** Seconds after which another try makes sense; false if none does; undefined if the server does not say. */
  retry?: number | false;
  /** Other members of the body. */
  [member: string]: unknown;
}

/** A denial: of a handshake, or by the close of an open socket. A `retry` or a `close` event follows. */
export interface DeniedEvent extends Event {
  readonly problem: Problem;
}

interface Loss {
  /** The close code; 4000 + status of a denied handshake; 1006 if the connection failed. */
  readonly code: number;
  /** The reason of the close; the code of the problem for a denied handshake. */
  readonly reason: string;
  /** Undefined if the server did not deny, or it could not be told. */
  readonly problem?: Problem;
}

/** The socket is not open, and will be tried again after a pause. */
export interface RetryEvent extends Event, Loss {
  /** Seconds until the next try. */
  readonly delay: number;
  /** How many tries have failed in a row, this one included. */
  readonly tries: number;
}

/** The end: there will be no other try. */
export interface EndEvent extends Event, Loss {
  readonly wasClean: boolean;
}

/** A try failed. More is known by the `denied`, `retry` or `close` event after it. */
export interface FailureEvent extends Event {
  /** What `url`, `protocols`, `ticket` or `token` threw, or `WebSocket` itself. */
  readonly error?: unknown;
}

export interface GuardedWebSocketEventMap {
  open: Event;
  message: MessageEvent;
  denied: DeniedEvent;
  retry: RetryEvent;
  error: FailureEvent;
  close: EndEvent;
}

export interface GuardedWebSocketOptions {
  /**
   * A fresh ticket for a request to this address, which goes into it as `?ticket=`. It is called for each handshake,
   * and for the request that asks why one failed. A problem that it throws counts as one of the server's.
   */
  ticket?: (url: string) => string | Promise<string>;
  /**
   * A fresh token for each request: the subprotocols `bearer` and the token, and `Authorization: Bearer` of the request
   * that asks why a handshake failed. It has to be made of the characters of a subprotocol, as JSON Web Tokens are.
   */
  token?: () => string | Promise<string>;
  /** Whether to ask the address why a handshake failed. Turn it off where it reaches another server. Default: true. */
  explain?: boolean;
  /**
   * Of the request that asks, see `fetch`. Default: "include", as handshakes do; "same-origin" with a ticket or token.
   */
  credentials?: RequestCredentials;
  /** Failed tries in a row after which it ends. Default: no limit. */
  tries?: number;
  /**
   * Before each try there is a random pause, up to `minDelay` seconds after the first failure, twice that after the
   * next, and so on up to `maxDelay`. What the server asks for is added. Defaults: 1 and 30.
   */
  minDelay?: number;
  maxDelay?: number;
}

type Given<T> = T | (() => T | Promise<T>);

/**
 * A `WebSocket` that learns why its handshake was denied, and tries again where that makes sense.
 *
 * Between two tries it is `CONNECTING`. Nothing is queued: `send()` raises until it is open. `close` comes once, at
 * the end; see `retry` for what comes before.
 */
export class GuardedWebSocket extends EventTarget {
  /**
   * `url` may be relative to the page. It and `protocols` may be functions, which are called before each request.
   * Throws a `TypeError` for a string that is no URL.
   */
  constructor(url: Given<string | URL>, protocols?: Given<string | string[]>, options?: GuardedWebSocketOptions);

  static readonly CONNECTING: 0;
  static readonly OPEN: 1;
  static readonly CLOSING: 2;
  static readonly CLOSED: 3;
  readonly CONNECTING: 0;
  readonly OPEN: 1;
  readonly CLOSING: 2;
  readonly CLOSED: 3;

  readonly readyState: 0 | 1 | 2 | 3;
  /** The address without the ticket; empty before a function has given it. */
  readonly url: string;
  readonly protocol: string;
  readonly extensions: string;
  readonly bufferedAmount: number;
  binaryType: BinaryType;

  onopen: ((event: Event) => unknown) | null;
  onmessage: ((event: MessageEvent) => unknown) | null;
  ondenied: ((event: DeniedEvent) => unknown) | null;
  onretry: ((event: RetryEvent) => unknown) | null;
  onerror: ((event: FailureEvent) => unknown) | null;
  onclose: ((event: EndEvent) => unknown) | null;

  /** Throws an `InvalidStateError` while `CONNECTING`; does nothing once it is closed. */
  send(data: string | ArrayBufferLike | Blob | ArrayBufferView): void;
  /** End it, in whatever it does: an open socket, a handshake, a pause, a question. Default: 1000 and no reason. */
  close(code?: number, reason?: string): void;

  addEventListener<K extends keyof GuardedWebSocketEventMap>(
    type: K,
    listener: (event: GuardedWebSocketEventMap[K]) => unknown,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject,
    options?: boolean | AddEventListenerOptions,
  ): void;
  removeEventListener<K extends keyof GuardedWebSocketEventMap>(
    type: K,
    listener: (event: GuardedWebSocketEventMap[K]) => unknown,
    options?: boolean | EventListenerOptions,
  ): void;
  removeEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject,
    options?: boolean | EventListenerOptions,
  ): void;
}

export default GuardedWebSocket;
