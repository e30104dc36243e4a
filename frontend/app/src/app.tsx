import { createNotifications, createPush } from "@notify/client";
import { NotificationsProvider } from "@notify/react";
import { useEffect, useMemo, useState } from "react";
import { Home } from "./home.tsx";
import { type Session, sessionTokens, signOut, storedSession } from "./session.ts";
import { SignIn } from "./sign-in.tsx";

export function App() {
  const [session, setSession] = useState(storedSession);
  if (!session) return <SignIn onSignedIn={setSession} />;
  return (
    <SignedIn
      key={session.user.id}
      session={session}
      onSignOut={() => {
        signOut();
        setSession(null);
      }}
    />
  );
}

function SignedIn({ session, onSignOut }: { session: Session; onSignOut: () => void }) {
  const [client, push] = useMemo(() => {
    const client = createNotifications({
      baseUrl: location.origin,
      token: sessionTokens(session),
    });
    return [client, createPush({ client })] as const;
  }, [session]);

  useEffect(() => {
    push.start();
    return () => push.stop();
  }, [push]);

  function leave() {
    // Who uses this browser next is not to be shown what is pushed to this user. What cannot be
    // told to the server now, it learns from the push service.
    push.disable().catch(() => undefined);
    onSignOut();
  }

  return (
    <NotificationsProvider client={client}>
      <Home user={session.user} push={push} onSignOut={leave} />
    </NotificationsProvider>
  );
}
