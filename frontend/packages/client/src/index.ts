export {
  type Api,
  ApiError,
  type ClickedAction,
  type ErrorDetail,
  type Notification,
  type NotificationPage,
  type NotificationQuery,
  type Preferences,
  type PushDevice,
  type TokenProvider,
  type UnreadCounts,
  type UpdateGlobalPreferences,
  type UpdatePreference,
  type UpdateSettings,
  type UserSettings,
} from "./api.ts";
export type { Change, Failure } from "./changes.ts";
export {
  createNotifications,
  type ListenOptions,
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
export {
  createPush,
  type Push,
  type PushOptions,
  type PushState,
  type PushStatus,
} from "./push.ts";
export { browserPushEnvironment, type PushEnvironment } from "./push-environment.ts";
export type { NotificationsState } from "./store.ts";
export type { OpenedPush, WorkerMessage } from "./worker-message.ts";
