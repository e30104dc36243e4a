import type { Failure, Notification } from "@notify/client";
import { useNotifications, useNotificationsClient } from "@notify/react";
import { CloseIcon } from "./icons.tsx";
import { describeFailure } from "./item-changes.ts";

/** Which changes were taken back and why, over the page, so that nothing moves. */
export function FailureNotice() {
  const client = useNotificationsClient();
  const failures = useNotifications((state) => state.failures);
  const items = useNotifications((state) => state.items);
  return (
    <div className="notice-place" role="alert">
      {failures.length > 0 && (
        <div className="problem notice">
          <p>{describe(failures, items)}</p>
          <button
            type="button"
            className="button button--quiet"
            onClick={() => {
              for (const { change } of failures) void client.change(change);
            }}
          >
            Try again
          </button>
          <button
            type="button"
            className="button button--icon"
            aria-label="Dismiss"
            onClick={() => client.dismissFailures()}
          >
            <CloseIcon />
          </button>
        </div>
      )}
    </div>
  );
}

function describe(failures: readonly Failure[], items: readonly Notification[]): string {
  const last = failures.at(-1);
  if (!last) return "";
  const { change, error } = last;
  if (failures.length > 1) return `${failures.length} changes could not be made. ${error.message}`;
  const item = change.kind !== "read_all" && items.find(({ id }) => id === change.id);
  return `${describeFailure(change, item ? item.title : undefined)} ${error.message}`;
}
