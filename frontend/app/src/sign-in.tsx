import type { ApiError } from "@notify/client";
import { useState } from "react";
import { Avatar } from "./avatar.tsx";
import { type DemoUser, listUsers } from "./demo.ts";
import { BellIcon } from "./icons.tsx";
import { useLoaded } from "./loading.ts";
import { Problem } from "./problem.tsx";
import { type Session, signIn } from "./session.ts";

export function SignIn({ onSignedIn }: { onSignedIn: (session: Session) => void }) {
  const [users, retry] = useLoaded(listUsers);
  const signedInElsewhere = users.status === "error" && users.error.status === 404;
  return (
    <main className="sign-in">
      <title>Sign in · Notify</title>
      <div className="sign-in__card">
        <div className="mark mark--large">
          <BellIcon />
        </div>
        <h1>{signedInElsewhere ? "Notify is running" : "Sign in to Notify"}</h1>
        {signedInElsewhere ? (
          <SignedInElsewhere />
        ) : (
          <>
            <p className="sign-in__lead">
              Pick a demo user. In production your own application signs people in, and Notify only
              checks its tokens.
            </p>
            {users.status === "loading" && <UserSkeleton />}
            {users.status === "error" && <Problem error={users.error} onRetry={retry} />}
            {users.status === "ready" && <UserChoice users={users.value} onSignedIn={onSignedIn} />}
          </>
        )}
      </div>
    </main>
  );
}

function SignedInElsewhere() {
  return (
    <p className="sign-in__lead">
      There are no demo users here, because this is not a development installation. Your own
      application signs people in and hands its access token to the notification client; this page
      cannot do that for you. The API’s reference is at <a href="/docs">/docs</a>.
    </p>
  );
}

interface UserChoiceProps {
  users: readonly DemoUser[];
  onSignedIn: (session: Session) => void;
}

function UserChoice({ users, onSignedIn }: UserChoiceProps) {
  const [busy, setBusy] = useState<string | null>(null);
  const [error, setError] = useState<ApiError | null>(null);

  async function choose(user: DemoUser) {
    setBusy(user.id);
    setError(null);
    try {
      onSignedIn(await signIn(user));
    } catch (failure) {
      setError(failure as ApiError);
      setBusy(null);
    }
  }

  return (
    <>
      <ul className="users">
        {users.map((user) => (
          <li key={user.id}>
            <button
              type="button"
              className="user"
              aria-disabled={busy !== null}
              onClick={() => busy === null && void choose(user)}
            >
              <Avatar name={user.full_name} />
              <span className="user__name">{user.full_name}</span>
              <span className="user__detail">{user.email}</span>
              <span className="user__place">{placeOf(user.timezone)}</span>
            </button>
          </li>
        ))}
      </ul>
      {users.length === 0 && (
        <p className="muted">
          There are no demo users. Run <code>notify up</code> to seed them.
        </p>
      )}
      {error && <Problem error={error} />}
    </>
  );
}

const placeOf = (timezone: string) => timezone.split("/").at(-1)?.replaceAll("_", " ");

function UserSkeleton() {
  return (
    <ul className="users" aria-label="Loading demo users">
      {[1, 2, 3].map((row) => (
        <li key={row} className="user user--skeleton">
          <span className="skeleton skeleton--avatar" />
          <span className="skeleton skeleton--line" />
          <span className="skeleton skeleton--short" />
        </li>
      ))}
    </ul>
  );
}
