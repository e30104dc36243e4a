import type { View } from "@notify/client";
import { NotificationList, useNotifications, useNotificationsClient } from "@notify/react";
import { type ReactNode, type RefObject, useRef, useState } from "react";
import { announce } from "./announcements.ts";
import { useCardKeys, useKeptFocus } from "./card-keys.ts";
import { ConnectionProblem } from "./connection-status.tsx";
import { BellIcon, CheckIcon } from "./icons.tsx";
import { KeyHelp } from "./key-help.tsx";
import { useListMotion } from "./list-motion.ts";
import { NotificationCard } from "./notification-card.tsx";
import { Problem } from "./problem.tsx";

interface InboxProps {
  headingRef: RefObject<HTMLHeadingElement | null>;
  arrivals: ReadonlySet<string>;
  /** What stands beside the heading. */
  children: ReactNode;
}

export function Inbox({ headingRef, arrivals, children }: InboxProps) {
  const unread = useNotifications((state) => state.unreadCount);
  const isKnown = useNotifications((state) => state.seq !== undefined);
  const place = useRef<HTMLDivElement>(null);
  const [helping, setHelping] = useState(false);
  useCardKeys(place, () => setHelping(true));
  useKeptFocus(place, headingRef);
  return (
    <div ref={place}>
      <div className="inbox__head">
        <div className="inbox__title">
          <h1 ref={headingRef} tabIndex={-1}>
            Notifications
          </h1>
          <p className="inbox__count muted">{isKnown && describeCount(unread)}</p>
        </div>
        {children}
        <div className="inbox__tools">
          <Views />
          <MarkAllRead />
          <button
            type="button"
            className="button button--icon"
            aria-label="Keys"
            title="Keys"
            onClick={() => setHelping(true)}
          >
            ?
          </button>
        </div>
      </div>
      <ConnectionProblem />
      <InboxContent arrivals={arrivals} />
      {helping && <KeyHelp onClose={() => setHelping(false)} />}
    </div>
  );
}

const describeCount = (unread: number) => (unread > 0 ? `${unread} unread` : "All read");

const VIEWS: readonly (readonly [View, string])[] = [
  ["all", "All"],
  ["unread", "Unread"],
];

function Views() {
  const client = useNotificationsClient();
  const shown = useNotifications((state) => state.view);
  return (
    <fieldset className="views">
      <legend className="visually-hidden">Show</legend>
      {VIEWS.map(([view, label]) => (
        <button
          key={view}
          type="button"
          className="views__view"
          aria-pressed={view === shown}
          onClick={() => void client.show(view)}
        >
          {label}
        </button>
      ))}
    </fieldset>
  );
}

function MarkAllRead() {
  const client = useNotificationsClient();
  const isIdle = useNotifications((state) => state.unreadCount === 0);
  return (
    <button
      type="button"
      className="button button--quiet"
      // Still focusable, so that who has just pressed it is not thrown off the page.
      aria-disabled={isIdle}
      data-idle={isIdle || undefined}
      onClick={() => {
        if (isIdle) return;
        void client.markAllRead();
        announce("All marked as read");
      }}
    >
      Mark all as read
    </button>
  );
}

function InboxContent({ arrivals }: { arrivals: ReadonlySet<string> }) {
  const client = useNotificationsClient();
  const { status, error, items, view, hasMore, more } = useNotifications();
  const isEmpty = items.length === 0;
  const isComing = status === "loading" || status === "idle" || (hasMore && more !== "error");
  const isDone = status === "ready" && !hasMore;
  return (
    <>
      {error && <Problem error={error} onRetry={() => void client.refresh()} />}
      {isEmpty && status !== "error" && isComing && <ListSkeleton />}
      {isEmpty && isDone && (view === "unread" ? <AllRead /> : <Empty />)}
      {isEmpty && hasMore && more === "error" && <More />}
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

function AllRead() {
  return (
    <div className="empty">
      <div className="mark mark--large">
        <CheckIcon />
      </div>
      <h2>Nothing unread</h2>
      <p className="muted">You have read everything there is.</p>
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
