import type { Push } from "@notify/client";
import { Bell, useNotifications } from "@notify/react";
import { useRef, useState } from "react";
import { Announcer } from "./announcer.tsx";
import { useArrivals } from "./arrivals.ts";
import { Avatar } from "./avatar.tsx";
import { Composer } from "./composer.tsx";
import { ConnectionStatus } from "./connection-status.tsx";
import type { DemoUser } from "./demo.ts";
import { FailureNotice } from "./failure-notice.tsx";
import { BellIcon, PlusIcon, PushIcon } from "./icons.tsx";
import { Inbox } from "./inbox.tsx";
import { useMedia } from "./media.ts";
import { OpenedPush } from "./opened-push.tsx";
import { usePush } from "./push.ts";
import { PushSheet } from "./push-sheet.tsx";
import { Sheet } from "./sheet.tsx";

const WIDE = "(min-width: 60rem)";

interface HomeProps {
  user: DemoUser;
  push: Push;
  onSignOut: () => void;
}

export function Home({ user, push, onSignOut }: HomeProps) {
  const unread = useNotifications((state) => state.unreadCount);
  const arrivals = useArrivals();
  const wide = useMedia(WIDE);
  const isPushOn = usePush(push).status === "on";
  const [settingPush, setSettingPush] = useState(false);
  const [composing, setComposing] = useState(false);
  const heading = useRef<HTMLHeadingElement>(null);

  function showInbox() {
    scrollTo({ top: 0 });
    heading.current?.focus({ preventScroll: true });
  }

  return (
    <>
      <title>{`${unread > 0 ? `(${unread}) ` : ""}Notifications · Notify`}</title>
      <a className="skip" href="#inbox">
        Skip to notifications
      </a>
      <header className="bar">
        <div className="bar__inner">
          <span className="bar__name">
            <span className="mark">
              <BellIcon />
            </span>
            <span>Notify</span>
          </span>
          <ConnectionStatus />
          <Bell className="bell" icon={<BellIcon />} onClick={showInbox} />
          <button
            type="button"
            className="button button--icon bar__push"
            aria-label={`Push notifications, ${isPushOn ? "on" : "off"}`}
            title="Push notifications"
            data-on={isPushOn || undefined}
            onClick={() => setSettingPush(true)}
          >
            <PushIcon />
          </button>
          <span className="bar__user">
            <Avatar name={user.full_name} />
            <span className="bar__user-name">{user.full_name}</span>
          </span>
          <button type="button" className="button button--quiet" onClick={onSignOut}>
            Sign out
          </button>
        </div>
      </header>
      <div className="home">
        <main id="inbox" className="home__inbox" tabIndex={-1}>
          <Inbox headingRef={heading} arrivals={arrivals}>
            {!wide && (
              <button type="button" className="button" onClick={() => setComposing(true)}>
                <PlusIcon />
                Send one
              </button>
            )}
          </Inbox>
        </main>
        {wide && (
          <aside className="home__aside" aria-labelledby="composer-heading">
            <h2 id="composer-heading">Send a notification</h2>
            <Composer user={user} />
          </aside>
        )}
      </div>
      {!wide && composing && (
        <Sheet title="Send a notification" onClose={() => setComposing(false)}>
          <Composer user={user} />
        </Sheet>
      )}
      {settingPush && <PushSheet push={push} onClose={() => setSettingPush(false)} />}
      <OpenedPush push={push} />
      <FailureNotice />
      <Announcer />
    </>
  );
}
