import type { Notification } from "@notify/client";
import { useNotificationsClient } from "@notify/react";
import { Answers } from "./answers.tsx";
import { ArrowIcon, BinIcon, MarkReadIcon, MarkUnreadIcon, TypeIcon } from "./icons.tsx";
import { remove, toggleRead } from "./item-changes.ts";
import { linksOf } from "./links.ts";
import { RelativeTime } from "./time.tsx";

interface NotificationCardProps {
  item: Notification;
  /** It arrived while the page was open. */
  isNew: boolean;
}

export function NotificationCard({ item, isNew }: NotificationCardProps) {
  const unread = item.read_at === null;
  const heading = `n-${item.id}`;
  return (
    <article
      className="card"
      tabIndex={-1}
      aria-labelledby={heading}
      data-unread={unread || undefined}
      data-new={isNew || undefined}
    >
      <span className="card__tile" data-type={item.type}>
        <TypeIcon type={item.type} />
      </span>
      <div className="card__content">
        <div className="card__head">
          <h2 id={heading} className="card__title" data-title={item.title}>
            <span>
              {unread && <span className="visually-hidden">Unread: </span>}
              {item.title}
            </span>
          </h2>
          <span className="card__time">
            <RelativeTime at={item.created_at} />
            <span className="card__dot" aria-hidden="true" />
          </span>
        </div>
        <CardBody item={item} />
        <Answers item={item} />
        <div className="card__foot">
          <span className="card__type">{item.type}</span>
          <span className="priority" data-priority={item.priority}>
            {item.priority}
          </span>
          <div className="card__end">
            <Tools item={item} heading={heading} />
            <CardLinks item={item} describedBy={heading} />
          </div>
        </div>
      </div>
    </article>
  );
}

export const CardBody = ({ item }: { item: Notification }) => (
  <div
    className="card__body"
    // biome-ignore lint/security/noDangerouslySetInnerHtml: the server sanitises body_html
    dangerouslySetInnerHTML={{ __html: item.body_html }}
  />
);

interface CardLinksProps {
  item: Notification;
  /** Id of the heading that says what is linked. */
  describedBy?: string;
}

export const CardLinks = ({ item, describedBy }: CardLinksProps) =>
  linksOf(item).map(({ label, href, index }) => (
    <a
      key={`${label} ${href}`}
      className="card__link"
      href={href}
      data-action={index}
      aria-describedby={describedBy}
    >
      {label}
      <ArrowIcon />
    </a>
  ));

function Tools({ item, heading }: { item: Notification; heading: string }) {
  const client = useNotificationsClient();
  const unread = item.read_at === null;
  const mark = unread ? "Mark as read" : "Mark as unread";
  return (
    <span className="card__tools">
      <button
        type="button"
        className="tool"
        aria-label={mark}
        title={mark}
        aria-describedby={heading}
        onClick={() => toggleRead(client, item)}
      >
        {unread ? <MarkReadIcon /> : <MarkUnreadIcon />}
      </button>
      <button
        type="button"
        className="tool tool--remove"
        aria-label="Delete"
        title="Delete"
        aria-describedby={heading}
        onClick={() => remove(client, item)}
      >
        <BinIcon />
      </button>
    </span>
  );
}
