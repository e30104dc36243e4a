/** What the client needs of a WebSocket; the browser's own satisfies it. */
export interface Socket {
  onopen: (() => void) | null;
  onmessage: ((event: { data: unknown }) => void) | null;
  onclose: ((event: { code: number }) => void) | null;
  send(text: string): void;
  close(code?: number): void;
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
    addEventListener("online", listener);
    addEventListener("offline", listener);
    document.addEventListener("visibilitychange", whenVisible);
    return () => {
      removeEventListener("online", listener);
      removeEventListener("offline", listener);
      document.removeEventListener("visibilitychange", whenVisible);
    };
  },
};
