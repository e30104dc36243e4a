import { lazy, type RefObject, Suspense } from "react";
import { Link } from "./link.tsx";
import { INBOX } from "./views.ts";

/** Fetched when they are asked for, which few visits do. */
const Preferences = lazy(() =>
  import("./preferences/page.tsx").catch(() => ({ default: Unfetched })),
);

export function PreferencesView({
  headingRef,
}: {
  headingRef: RefObject<HTMLHeadingElement | null>;
}) {
  return (
    <main id="preferences" className="preferences" tabIndex={-1}>
      <Link className="preferences__back" href={INBOX}>
        ← Notifications
      </Link>
      <h1 ref={headingRef} tabIndex={-1}>
        Preferences
      </h1>
      <p className="muted">
        What reaches you outside the notification center, how and when. Each change is saved at
        once. What is critical always reaches you.
      </p>
      <Suspense fallback={<p className="muted">Loading…</p>}>
        <Preferences />
      </Suspense>
    </main>
  );
}

/** The browser keeps in mind that it failed, so only loading the page anew tries again. */
function Unfetched() {
  return (
    <div className="problem" role="alert">
      <p>The preferences could not be loaded.</p>
      <button type="button" className="button button--quiet" onClick={() => location.reload()}>
        Try again
      </button>
    </div>
  );
}
