import type { Push } from "@notify/client";
import { useNotifications } from "@notify/react";
import { type RefObject, useEffect, useRef, useState } from "react";
import { Announcer } from "./announcer.tsx";
import { useArrivals } from "./arrivals.ts";
import { Bar } from "./bar.tsx";
import { Composer } from "./composer.tsx";
import type { DemoUser } from "./demo.ts";
import { FailureNotice } from "./failure-notice.tsx";
import { PlusIcon } from "./icons.tsx";
import { Inbox } from "./inbox.tsx";
import { navigate, usePath } from "./location.ts";
import { useMedia } from "./media.ts";
import { OpenedPush } from "./opened-push.tsx";
import { PreferencesView } from "./preferences-view.tsx";
import { PushSheet } from "./push-sheet.tsx";
import { Sheet } from "./sheet.tsx";
import { INBOX, PREFERENCES } from "./views.ts";

const WIDE = "(min-width: 60rem)";

interface HomeProps {
  user: DemoUser;
  push: Push;
  onSignOut: () => void;
}

export function Home({ user, push, onSignOut }: HomeProps) {
  const unread = useNotifications((state) => state.unreadCount);
  const path = usePath();
  const isAtPreferences = path === PREFERENCES;
  const [settingPush, setSettingPush] = useState(false);
  const heading = useRef<HTMLHeadingElement>(null);
  useFocusOnMove(path, heading);

  function showInbox() {
    navigate(INBOX);
    scrollTo({ top: 0 });
    heading.current?.focus({ preventScroll: true });
  }

  const name = isAtPreferences ? "Preferences" : "Notifications";
  return (
    <>
      <title>{`${unread > 0 ? `(${unread}) ` : ""}${name} · Notify`}</title>
      <a className="skip" href={isAtPreferences ? "#preferences" : "#inbox"}>
        Skip to {name.toLowerCase()}
      </a>
      <Bar
        user={user}
        push={push}
        isAtPreferences={isAtPreferences}
        onInbox={showInbox}
        onPush={() => setSettingPush(true)}
        onSignOut={onSignOut}
      />
      {isAtPreferences ? (
        <PreferencesView headingRef={heading} />
      ) : (
        <InboxView user={user} headingRef={heading} />
      )}
      {settingPush && <PushSheet push={push} onClose={() => setSettingPush(false)} />}
      <OpenedPush push={push} />
      <Announcer />
    </>
  );
}

/** Moves the focus to the heading of a view that is moved to, not of the one that is loaded. */
function useFocusOnMove(path: string, heading: RefObject<HTMLHeadingElement | null>): void {
  const shown = useRef(path);
  useEffect(() => {
    if (path === shown.current) return;
    shown.current = path;
    heading.current?.focus({ preventScroll: true });
  }, [path, heading]);
}

interface InboxViewProps {
  user: DemoUser;
  headingRef: RefObject<HTMLHeadingElement | null>;
}

function InboxView({ user, headingRef }: InboxViewProps) {
  const arrivals = useArrivals();
  const wide = useMedia(WIDE);
  const [composing, setComposing] = useState(false);
  return (
    <>
      <div className="home">
        <main id="inbox" className="home__inbox" tabIndex={-1}>
          <Inbox headingRef={headingRef} arrivals={arrivals}>
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
      <FailureNotice />
    </>
  );
}
