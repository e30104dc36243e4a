import { NotificationList, useNotifications, useNotificationsClient } from "@notify/react";
import { type ReactNode, type Ref, useRef } from "react";
import { ConnectionProblem } from "./connection-status.tsx";
import { BellIcon } from "./icons.tsx";
import { useListMotion } from "./list-motion.ts";
import { NotificationCard } from "./notification-card.tsx";
import { Problem } from "./problem.tsx";

interface InboxProps {
  headingRef: Ref<HTMLHeadingElement>;
  arrivals: ReadonlySet<string>;
  /** What stands beside the heading. */
  children: ReactNode;
}

export function Inbox({ headingRef, arrivals, children }: InboxProps) {
  const unread = useNotifications((state) => state.unreadCount);
  const hasItems = useNotifications((state) => state.items.length > 0);
  return (
    <>
      <div className="inbox__head">
        <div className="inbox__title">
          <h1 ref={headingRef} tabIndex={-1}>
            Notifications
          </h1>
          <p className="inbox__count muted">{hasItems && describeCount(unread)}</p>
        </div>
        {children}
      </div>
      <ConnectionProblem />
      <InboxContent arrivals={arrivals} />
    </>
  );
}

const describeCount = (unread: number) => (unread > 0 ? `${unread} unread` : "All read");

function InboxContent({ arrivals }: { arrivals: ReadonlySet<string> }) {
  const client = useNotificationsClient();
  const { status, error, items } = useNotifications();
  const isEmpty = items.length === 0;
  return (
    <>
      {error && <Problem error={error} onRetry={() => void client.refresh()} />}
      {isEmpty && (status === "loading" || status === "idle") && <ListSkeleton />}
      {isEmpty && status === "ready" && <Empty />}
      {!isEmpty && <List arrivals={arrivals} />}
    </>
  );
}

function List({ arrivals }: { arrivals: ReadonlySet<string> }) {
  const list = useRef<HTMLOListElement>(null);
  const isWhole = useNotifications((state) => state.status !== "error");
  useListMotion(list, arrivals);
  return (
    <>
      <NotificationList ref={list} className="list">
        {(item) => <NotificationCard item={item} isNew={arrivals.has(item.id)} />}
      </NotificationList>
      {isWhole && <More />}
    </>
  );
}

function More() {
  const client = useNotificationsClient();
  const hasMore = useNotifications((state) => state.hasMore);
  const more = useNotifications((state) => state.more);
  if (!hasMore) return <p className="list__end muted">That is everything.</p>;
  return (
    <div className="list__end">
      <button
        type="button"
        className="button"
        aria-disabled={more === "loading"}
        onClick={() => void client.loadMore()}
      >
        {more === "loading" ? "Loading…" : "Show older"}
      </button>
      {more === "error" && (
        <p className="list__error" role="alert">
          Older notifications could not be loaded.
        </p>
      )}
    </div>
  );
}

function Empty() {
  return (
    <div className="empty">
      <div className="mark mark--large">
        <BellIcon />
      </div>
      <h2>Nothing here yet</h2>
      <p className="muted">New notifications appear by themselves. Send one to see it arrive.</p>
    </div>
  );
}

function ListSkeleton() {
  return (
    <div className="list list--skeleton" role="status" aria-label="Loading notifications">
      {[1, 2, 3, 4, 5].map((row) => (
        <div key={row} className="card">
          <span className="skeleton skeleton--tile" />
          <div className="card__content">
            <span className="skeleton skeleton--line" />
            <span className="skeleton skeleton--text" />
            <span className="skeleton skeleton--short" />
          </div>
        </div>
      ))}
    </div>
  );
}
