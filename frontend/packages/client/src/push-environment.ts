/** What push takes from the browser: permission, the service worker, and a place to keep a note. */

import type { Locks } from "./environment.ts";

/** What push needs of a PushSubscription; the browser's own satisfies it. */
export interface Subscription {
  readonly endpoint: string;
  readonly options: { readonly applicationServerKey: ArrayBuffer | null };
  toJSON(): PushSubscriptionJSON;
  unsubscribe(): Promise<boolean>;
}

/** A notification that the browser shows. */
export interface ShownPush {
  readonly data: unknown;
  close(): void;
}

/** What push needs of a ServiceWorkerRegistration. */
export interface Registration {
  readonly pushManager: {
    getSubscription(): Promise<Subscription | null>;
    subscribe(options: {
      userVisibleOnly: true;
      applicationServerKey: Uint8Array<ArrayBuffer>;
    }): Promise<Subscription>;
  };
  getNotifications(filter?: { tag: string }): Promise<readonly ShownPush[]>;
}

/** What the service worker tells, and how to offer to act on it; `take` is called if chosen. */
export type WorkerListener = (message: unknown, offer: (take: () => void) => void) => void;

export interface PushEnvironment {
  /** `needs-install`: iOS, which gives push to what is on the home screen alone. */
  support(): "full" | "needs-install" | "none";
  permission(): NotificationPermission;
  askPermission(): Promise<NotificationPermission>;
  /** Calls `listener` when the user changes the permission in the browser's settings. */
  onPermission(listener: () => void): () => void;
  /** Registers the service worker, or has it looked after updates; resolves once it is active. */
  register(): Promise<Registration>;
  registration(): Promise<Registration | undefined>;
  onWorkerMessage(listener: WorkerListener): () => void;
  /** Told to the server, so that the user recognises the device in the list. */
  device(): Record<string, unknown>;
  /** The count at the icon of the installed page. */
  setBadge(count: number): void;
  /** A note that all tabs of the browser share. */
  note(): string | null;
  setNote(note: string | null): void;
  /** Calls `listener` when another tab has changed the note. */
  onNote(listener: () => void): () => void;
  readonly locks?: Locks | undefined;
}

const NOTE = "notify.push";

/** @param worker address of the service worker, which decides over its own directory. */
export function browserPushEnvironment(worker = "/sw.js"): PushEnvironment {
  const workers = () => navigator.serviceWorker;
  return {
    support() {
      if (globalThis.PushManager && globalThis.Notification && workers()) return "full";
      return isAppleMobile() && !isInstalled() ? "needs-install" : "none";
    },
    permission: () => Notification.permission,
    askPermission: () => Notification.requestPermission(),
    onPermission(listener) {
      let status: PermissionStatus | undefined;
      let isOver = false;
      // Where the browser cannot tell, the next visit will.
      navigator.permissions?.query({ name: "notifications" }).then(
        (found) => {
          if (isOver) return;
          status = found;
          status.onchange = listener;
        },
        () => undefined,
      );
      return () => {
        isOver = true;
        if (status) status.onchange = null;
      };
    },
    async register() {
      const registration = await workers().register(worker, { updateViaCache: "none" });
      await activated(registration);
      return registration as Registration;
    },
    registration: async () => (await workers().getRegistration(worker)) as Registration | undefined,
    onWorkerMessage(listener) {
      const heard = ({ data, ports: [port] }: MessageEvent) =>
        listener(data, (take) => {
          if (!port) return;
          port.onmessage = take;
          port.postMessage("offer");
        });
      workers().addEventListener("message", heard);
      workers().startMessages();
      return () => workers().removeEventListener("message", heard);
    },
    device: () => ({
      platform: "web",
      user_agent: navigator.userAgent.slice(0, 512),
      screen_width: screen.width,
      device_name: deviceName(navigator.userAgent, navigator.maxTouchPoints),
    }),
    setBadge: (count) => void navigator.setAppBadge?.(count).catch(() => undefined),
    note() {
      try {
        return localStorage.getItem(NOTE);
      } catch {
        return null;
      }
    },
    setNote(note) {
      if (note === null) localStorage.removeItem(NOTE);
      else localStorage.setItem(NOTE, note);
    },
    onNote(listener) {
      const heard = ({ key }: StorageEvent) => {
        if (key === NOTE || key === null) listener();
      };
      addEventListener("storage", heard);
      return () => removeEventListener("storage", heard);
    },
    locks: globalThis.navigator?.locks,
  };
}

/** Waits until a worker of the registration can take a subscription. */
async function activated({ active, waiting, installing }: ServiceWorkerRegistration) {
  const worker = active ?? waiting ?? installing;
  while (worker && worker.state !== "activated") {
    if (worker.state === "redundant") throw new Error("The service worker could not be installed.");
    await new Promise((resolve) => worker.addEventListener("statechange", resolve, { once: true }));
  }
}

const isAppleMobile = () =>
  /iPhone|iPad|iPod/.test(navigator.userAgent) ||
  // An iPad that asks for the sites of desktops.
  (navigator.userAgent.includes("Macintosh") && navigator.maxTouchPoints > 1);

const isInstalled = () => matchMedia("(display-mode: standalone)").matches;

type Names = readonly (readonly [RegExp, string])[];

/** In the order to be tried: most browsers also name those they descend from. */
const BROWSERS: Names = [
  [/Edg(?:e|A|iOS)?\//, "Edge"],
  [/OPR\//, "Opera"],
  [/SamsungBrowser\//, "Samsung Internet"],
  [/Firefox\/|FxiOS\//, "Firefox"],
  [/Chrome\/|CriOS\//, "Chrome"],
  [/Safari\//, "Safari"],
];
const SYSTEMS: Names = [
  [/iPhone|iPod/, "iPhone"],
  [/iPad/, "iPad"],
  [/Android/, "Android"],
  [/Windows/, "Windows"],
  [/CrOS/, "ChromeOS"],
  [/Macintosh/, "macOS"],
  [/Linux/, "Linux"],
];

/** Such as `Chrome on Windows`. */
export function deviceName(userAgent: string, touchPoints = 0): string {
  const nameIn = (names: Names) => names.find(([pattern]) => pattern.test(userAgent))?.[1];
  const system = nameIn(SYSTEMS);
  const isTablet = system === "macOS" && touchPoints > 1;
  return `${nameIn(BROWSERS) ?? "Browser"} on ${isTablet ? "iPad" : (system ?? "a device")}`;
}
