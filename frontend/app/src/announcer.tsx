import type { InboxItem } from "@notify/client";
import { useNotificationsClient } from "@notify/react";
import { useEffect, useState } from "react";

/** Arrivals closer together than this are announced as one. */
const GATHER_MS = 700;

/** Tells who listens instead of looking what has arrived, when they pause. */
export function Announcer() {
  const client = useNotificationsClient();
  const [announcement, setAnnouncement] = useState({ number: 0, text: "" });

  useEffect(() => {
    let gathered: InboxItem[] = [];
    let timer: ReturnType<typeof setTimeout> | undefined;
    const leave = client.onArrival((item) => {
      gathered.push(item);
      timer ??= setTimeout(() => {
        const text = describe(gathered);
        gathered = [];
        timer = undefined;
        setAnnouncement(({ number }) => ({ number: number + 1, text }));
      }, GATHER_MS);
    });
    return () => {
      leave();
      clearTimeout(timer);
    };
  }, [client]);

  return (
    <div className="visually-hidden" role="status" data-testid="announcer">
      <p key={announcement.number}>{announcement.text}</p>
    </div>
  );
}

function describe(items: readonly InboxItem[]): string {
  const [only] = items;
  if (items.length !== 1 || !only) return `${items.length} new notifications`;
  const urgent = only.priority === "critical" ? "Critical notification" : "New notification";
  return `${urgent}: ${only.title}`;
}
