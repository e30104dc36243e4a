import type { Change, Notification, Notifications } from "@notify/client";
import { announce } from "./announcements.ts";

/** What can be done to one notification; each is said to who listens. */
export function toggleRead(client: Notifications, { id, read_at, title }: Notification): void {
  const isUnread = read_at === null;
  void (isUnread ? client.markRead(id) : client.markUnread(id));
  announce(`Marked as ${isUnread ? "read" : "unread"}: ${title}`);
}

export function remove(client: Notifications, { id, title }: Notification): void {
  void client.remove(id);
  announce(`Deleted: ${title}`);
}

/** What it says when `change` was taken back. */
export function describeFailure(change: Change, title: string | undefined): string {
  const what = title === undefined ? "A notification" : `“${shortened(title)}”`;
  switch (change.kind) {
    case "read":
      return `${what} could not be marked as read.`;
    case "unread":
      return `${what} could not be marked as unread.`;
    case "remove":
      return `${what} could not be deleted.`;
    case "read_all":
      return "Notifications could not be marked as read.";
  }
}

const shortened = (title: string) => (title.length > 60 ? `${title.slice(0, 59)}…` : title);
