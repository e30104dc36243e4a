export {
  type Api,
  ApiError,
  type ErrorDetail,
  type Notification,
  type NotificationPage,
  type TokenProvider,
  type UnreadCounts,
} from "./api.ts";
export { createNotifications, type Notifications, type NotificationsOptions } from "./client.ts";
export type { CloseReason, ConnectionState } from "./connection.ts";
export { browserEnvironment, type Environment, type Socket } from "./environment.ts";
export type { InboxItem } from "./inbox.ts";
export type { ClientMessage, ServerMessage } from "./protocol.ts";
export type { NotificationsState } from "./store.ts";
