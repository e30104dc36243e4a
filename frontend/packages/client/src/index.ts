export {
  type Api,
  ApiError,
  type ClickedAction,
  type ErrorDetail,
  type Notification,
  type NotificationPage,
  type NotificationQuery,
  type TokenProvider,
  type UnreadCounts,
} from "./api.ts";
export type { Change, Failure } from "./changes.ts";
export {
  type ArrivalOptions,
  createNotifications,
  type Notifications,
  type NotificationsOptions,
} from "./client.ts";
export type { CloseReason, ConnectionState } from "./connection.ts";
export {
  browserEnvironment,
  type Channel,
  type Environment,
  type Locks,
  type Socket,
} from "./environment.ts";
export type { View } from "./inbox.ts";
export type { ClientMessage, ServerMessage } from "./protocol.ts";
export type { NotificationsState } from "./store.ts";
