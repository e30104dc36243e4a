import { createNotifications } from "@notify/client";
import { NotificationsProvider } from "@notify/react";
import { useMemo, useState } from "react";
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
  const client = useMemo(
    () => createNotifications({ baseUrl: location.origin, token: sessionTokens(session) }),
    [session],
  );
  return (
    <NotificationsProvider client={client}>
      <Home user={session.user} onSignOut={onSignOut} />
    </NotificationsProvider>
  );
}
