import { ApiError, type Notification, type Push } from "@notify/client";
import { useNotifications, useNotificationsClient } from "@notify/react";
import { useEffect, useState } from "react";
import { CardBody, CardLinks } from "./notification-card.tsx";
import { Problem } from "./problem.tsx";
import { Sheet } from "./sheet.tsx";
import { RelativeTime } from "./time.tsx";

const PARAMETER = "notification";

/** Leads to the notification whose push was clicked, or that the address of the page names. */
export function OpenedPush({ push }: { push: Push }) {
  const client = useNotificationsClient();
  const isReady = useNotifications(({ status, view }) => status === "ready" && view === "all");
  const [wanted, setWanted] = useState(named);
  const [shown, setShown] = useState<Notification | ApiError | null>(null);

  useEffect(
    () =>
      push.onOpen(({ id, url }) => {
        if (isThisPage(url)) setWanted(id);
        else location.assign(url);
      }),
    [push],
  );

  useEffect(() => {
    if (wanted === null) return;
    // Among what is unread, it would leave as soon as it is looked at.
    if (client.getState().view !== "all") void client.show("all");
    if (!isReady) return;
    setWanted(null);
    history.replaceState(history.state, "", location.pathname);
    const card = document.querySelector<HTMLElement>(`[data-id="${CSS.escape(wanted)}"] > article`);
    // Beneath an open panel it could neither be seen nor focused.
    if (card && !document.querySelector("dialog[open]")) {
      card.scrollIntoView({ block: "center" });
      card.focus({ focusVisible: true } as FocusOptions);
      void client.markRead(wanted);
    } else {
      client.api.get(wanted).then((item) => {
        setShown(item);
        void client.markRead(item.id);
      }, setShown);
    }
  }, [client, isReady, wanted]);

  if (!shown) return null;
  return (
    <Sheet
      title={shown instanceof ApiError ? "Notification" : shown.title}
      onClose={() => setShown(null)}
    >
      {shown instanceof ApiError ? <Gone error={shown} /> : <Opened item={shown} />}
    </Sheet>
  );
}

function Opened({ item }: { item: Notification }) {
  return (
    <div className="opened">
      <p className="muted">
        <RelativeTime at={item.created_at} />
      </p>
      <CardBody item={item} />
      <p>
        <CardLinks item={item} />
      </p>
    </div>
  );
}

function Gone({ error }: { error: ApiError }) {
  if (error.status !== 404) return <Problem error={error} />;
  return <p className="muted">It is not there any more.</p>;
}

const named = () => new URLSearchParams(location.search).get(PARAMETER);

function isThisPage(address: string): boolean {
  const { origin, pathname } = new URL(address);
  return origin === location.origin && pathname === location.pathname;
}
