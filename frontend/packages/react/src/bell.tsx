import type { ComponentProps, ReactNode } from "react";
import { useNotifications } from "./provider.tsx";

export interface BellProps extends Omit<ComponentProps<"button">, "children"> {
  /** The picture of a bell. */
  icon: ReactNode;
  /** Counts above it are shown as `99+`. */
  max?: number;
}

/** A button that shows the unread count, and says it in full to who cannot see it. */
export function Bell({ icon, max = 99, ...button }: BellProps) {
  const count = useNotifications((state) => state.unreadCount);
  return (
    <button type="button" aria-label={`Notifications, ${count} unread`} {...button}>
      {icon}
      {count > 0 && (
        <span data-part="badge" aria-hidden="true">
          {count > max ? `${max}+` : count}
        </span>
      )}
    </button>
  );
}
