import type { InboxItem } from "@notify/client";
import { ArrowIcon, TypeIcon } from "./icons.tsx";
import { linksOf } from "./links.ts";
import { RelativeTime } from "./time.tsx";

interface NotificationCardProps {
  item: InboxItem;
  /** It arrived while the page was open. */
  isNew: boolean;
}

export function NotificationCard({ item, isNew }: NotificationCardProps) {
  const unread = item.read_at === null;
  const heading = `n-${item.id}`;
  return (
    <article
      className="card"
      aria-labelledby={heading}
      data-unread={unread || undefined}
      data-new={isNew || undefined}
    >
      <span className="card__tile" data-type={item.type}>
        <TypeIcon type={item.type} />
      </span>
      <div className="card__content">
        <div className="card__head">
          <h2 id={heading} className="card__title">
            {unread && <span className="visually-hidden">Unread: </span>}
            {item.title}
          </h2>
          <span className="card__time">
            <RelativeTime at={item.created_at} />
            {unread && <span className="card__dot" aria-hidden="true" />}
          </span>
        </div>
        <div
          className="card__body"
          // biome-ignore lint/security/noDangerouslySetInnerHtml: the server sanitises body_html
          dangerouslySetInnerHTML={{ __html: item.body_html }}
        />
        <div className="card__foot">
          <span className="card__type">{item.type}</span>
          <span className="priority" data-priority={item.priority}>
            {item.priority}
          </span>
          {linksOf(item).map(({ label, href }) => (
            <a
              key={`${label} ${href}`}
              className="card__link"
              href={href}
              aria-describedby={heading}
            >
              {label}
              <ArrowIcon />
            </a>
          ))}
        </div>
      </div>
    </article>
  );
}
