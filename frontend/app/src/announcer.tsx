import type { Notification } from "@notify/client";
import { useNotificationsClient } from "@notify/react";
import { useEffect, useState } from "react";
import { onAnnouncement } from "./announcements.ts";

/** Arrivals closer together than this are announced as one. */
const GATHER_MS = 700;

/** What is said stays this many announcements long, so that none is replaced before it is read. */
const KEPT = 5;

/** Tells who listens instead of looking what has arrived or changed, when they pause. */
export function Announcer() {
  const client = useNotificationsClient();
  const [said, setSaid] = useState<{ number: number; text: string }[]>([]);

  useEffect(() => {
    const say = (text: string) =>
      setSaid((said) => [...said, { number: (said.at(-1)?.number ?? 0) + 1, text }].slice(-KEPT));
    let gathered: Notification[] = [];
    let timer: ReturnType<typeof setTimeout> | undefined;
    const leave = client.onArrival((item) => {
      gathered.push(item);
      timer ??= setTimeout(() => {
        say(describe(gathered));
        gathered = [];
        timer = undefined;
      }, GATHER_MS);
    });
    const silence = onAnnouncement(say);
    return () => {
      leave();
      silence();
      clearTimeout(timer);
    };
  }, [client]);

  return (
    <div className="visually-hidden" role="log" data-testid="announcer">
      {said.map(({ number, text }) => (
        <p key={number}>{text}</p>
      ))}
    </div>
  );
}

function describe(items: readonly Notification[]): string {
  const [only] = items;
  if (items.length !== 1 || !only) return `${items.length} new notifications`;
  const urgent = only.priority === "critical" ? "Critical notification" : "New notification";
  return `${urgent}: ${only.title}`;
}
