import type { Push } from "@notify/client";
import { Bell } from "@notify/react";
import { Avatar } from "./avatar.tsx";
import { ConnectionStatus } from "./connection-status.tsx";
import type { DemoUser } from "./demo.ts";
import { BellIcon, PushIcon, SlidersIcon } from "./icons.tsx";
import { Link } from "./link.tsx";
import { usePush } from "./push.ts";
import { PREFERENCES } from "./views.ts";

interface BarProps {
  user: DemoUser;
  push: Push;
  isAtPreferences: boolean;
  onInbox: () => void;
  onPush: () => void;
  onSignOut: () => void;
}

/** What stands above every view. */
export function Bar({ user, push, isAtPreferences, onInbox, onPush, onSignOut }: BarProps) {
  const isPushOn = usePush(push).status === "on";
  return (
    <header className="bar">
      <div className="bar__inner">
        <span className="bar__name">
          <span className="mark">
            <BellIcon />
          </span>
          <span>Notify</span>
        </span>
        <ConnectionStatus />
        <Bell className="bell" icon={<BellIcon />} onClick={onInbox} />
        <button
          type="button"
          className="button button--icon bar__push"
          aria-label={`Push notifications, ${isPushOn ? "on" : "off"}`}
          title="Push notifications"
          data-on={isPushOn || undefined}
          onClick={onPush}
        >
          <PushIcon />
        </button>
        <Link
          href={PREFERENCES}
          className="button button--icon"
          aria-label="Preferences"
          title="Preferences"
          aria-current={isAtPreferences ? "page" : undefined}
        >
          <SlidersIcon />
        </Link>
        <span className="bar__user">
          <Avatar name={user.full_name} />
          <span className="bar__user-name">{user.full_name}</span>
        </span>
        <button type="button" className="button button--quiet" onClick={onSignOut}>
          Sign out
        </button>
      </div>
    </header>
  );
}
