/** What the service worker and the pages say to each other. */

/** The push whose notification was clicked. */
export interface OpenedPush {
  /** Of the notification. */
  id: string;
  /** Where the click leads: https or this site. */
  url: string;
}

/** To a page: one that would take `open` answers anything, and does if it is answered in turn. */
export type WorkerMessage =
  | ({ type: "notify.open" } & OpenedPush)
  /** The browser has put another subscription in the place of the last. */
  | { type: "notify.changed" };
