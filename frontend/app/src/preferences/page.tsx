import type { Notifications } from "@notify/client";
import { useNotificationsClient } from "@notify/react";
import { useCallback, useState } from "react";
import { useLoaded } from "../loading.ts";
import { Problem } from "../problem.tsx";
import { Channels } from "./channels.tsx";
import type { Choices } from "./choices.ts";
import { Digests } from "./digests.tsx";
import { PLACEHOLDER } from "./placeholder.ts";
import { QuietHours } from "./quiet-hours.tsx";
import { Region } from "./region.tsx";
import { SavingContext, SavingStatus } from "./saving.tsx";
import { Saving } from "./store.ts";
import { Types } from "./types.tsx";

/** What the user gets, how and when (REQ-017 to REQ-019); each change is saved at once. */
export default function Preferences() {
  const client = useNotificationsClient();
  const [loaded, retry] = useLoaded(useCallback(() => load(client), [client]));
  if (loaded.status === "loading") return <Skeleton />;
  if (loaded.status === "error") return <Problem error={loaded.error} onRetry={retry} />;
  return <Editor choices={loaded.value} />;
}

async function load({ api }: Notifications): Promise<Choices> {
  const [preferences, settings] = await Promise.all([api.preferences(), api.settings()]);
  return { ...preferences, settings };
}

/** The page without its values, so that nothing moves when they come. */
function Skeleton() {
  return (
    <>
      <p className="visually-hidden" role="status">
        Loading your preferences
      </p>
      <div className="preferences__skeleton" inert>
        <Editor choices={PLACEHOLDER} />
      </div>
    </>
  );
}

function Editor({ choices }: { choices: Choices }) {
  const { api } = useNotificationsClient();
  const [saving] = useState(() => new Saving(api, choices));
  return (
    <SavingContext value={saving}>
      <Channels />
      <Digests />
      <Types />
      <QuietHours />
      <Region />
      <SavingStatus />
    </SavingContext>
  );
}
