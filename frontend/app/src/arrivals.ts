import { useNotificationsClient } from "@notify/react";
import { useEffect, useState } from "react";

/** Ids of the notifications that arrived while the page was open. */
export function useArrivals(): ReadonlySet<string> {
  const client = useNotificationsClient();
  const [arrivals, setArrivals] = useState<ReadonlySet<string>>(new Set());
  useEffect(
    () => client.onArrival(({ id }) => setArrivals((known) => new Set([...known, id]))),
    [client],
  );
  return arrivals;
}
