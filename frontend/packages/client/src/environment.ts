/** What the client needs of a WebSocket; the browser's own satisfies it. */
export interface Socket {
  onopen: (() => void) | null;
  onmessage: ((event: { data: unknown }) => void) | null;
  onclose: ((event: { code: number }) => void) | null;
  send(text: string): void;
  close(code?: number): void;
}

/** What the client needs of a BroadcastChannel. */
export interface Channel {
  onmessage: ((event: { data: unknown }) => void) | null;
  postMessage(message: unknown): void;
  close(): void;
}

/** What the client needs of the Web Locks. */
export interface Locks {
  request(
    name: string,
    options: { signal?: AbortSignal; steal?: boolean },
    hold: () => Promise<void>,
  ): Promise<unknown>;
}

/** Everything the client takes from outside itself: time, chance, the network and the page. */
export interface Environment {
  /** Milliseconds since the epoch. */
  now(): number;
  /** A number in [0, 1). */
  random(): number;
  /** Runs `action` after `ms` milliseconds unless the returned function is called first. */
  after(ms: number, action: () => void): () => void;
  fetch(request: Request): Promise<Response>;
  createSocket(url: string): Socket;
  /** Calls `listener` when the network comes or goes, or the page is looked at again. */
  onWake(listener: () => void): () => void;
  /** Tells when the page is put away, as when it is frozen, and when it is back. */
  onPresence?(listener: (isPresent: boolean) => void): () => void;
  /** With both of these, the tabs of a browser share one socket. */
  readonly locks?: Locks | undefined;
  createChannel?(name: string): Channel;
}

export const browserEnvironment: Environment = {
  now: () => Date.now(),
  random: () => Math.random(),
  after(ms, action) {
    const timer = setTimeout(action, ms);
    return () => clearTimeout(timer);
  },
  fetch: (request) => fetch(request),
  createSocket: (url) => new WebSocket(url) as Socket,
  onWake(listener) {
    const whenVisible = () => {
      if (document.visibilityState === "visible") listener();
    };
    return listen([
      [window, "online", listener],
      [window, "offline", listener],
      [document, "visibilitychange", whenVisible],
    ]);
  },
  onPresence(listener) {
    const leave = () => listener(false);
    const comeBack = () => listener(true);
    return listen([
      [window, "pagehide", leave],
      [document, "freeze", leave],
      [window, "pageshow", comeBack],
      [document, "resume", comeBack],
    ]);
  },
  // Only secure contexts have locks.
  locks: globalThis.navigator?.locks,
  ...("BroadcastChannel" in globalThis && {
    createChannel: (name: string) => new BroadcastChannel(name) as Channel,
  }),
};

function listen(subscriptions: readonly [EventTarget, string, () => void][]): () => void {
  for (const [target, type, listener] of subscriptions) target.addEventListener(type, listener);
  return () => {
    for (const [target, type, listener] of subscriptions)
      target.removeEventListener(type, listener);
  };
}
