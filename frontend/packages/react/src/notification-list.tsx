import type { Notification } from "@notify/client";
import type { ComponentProps, ReactNode } from "react";
import { useNotifications } from "./provider.tsx";

export interface NotificationListProps extends Omit<ComponentProps<"ol">, "children"> {
  /** Shows one notification, inside its `<li>`. */
  children: (item: Notification) => ReactNode;
}

/** The notifications held of what is shown, newest first. */
export function NotificationList({ children, ...list }: NotificationListProps) {
  const items = useNotifications((state) => state.items);
  return (
    <ol {...list}>
      {items.map((item) => (
        <li key={item.id} data-id={item.id} data-unread={item.read_at === null || undefined}>
          {children(item)}
        </li>
      ))}
    </ol>
  );
}
