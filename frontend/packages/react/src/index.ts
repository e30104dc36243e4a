export { Bell, type BellProps } from "./bell.tsx";
export { NotificationList, type NotificationListProps } from "./notification-list.tsx";
export {
  NotificationsProvider,
  type NotificationsProviderProps,
  useNotifications,
  useNotificationsClient,
} from "./provider.tsx";
