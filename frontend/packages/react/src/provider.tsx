import type { Notifications, NotificationsState } from "@notify/client";
import { createContext, type ReactNode, use, useEffect, useSyncExternalStore } from "react";

const NotificationsContext = createContext<Notifications | null>(null);

export interface NotificationsProviderProps {
  /** Made once per signed-in user by `createNotifications`; started and stopped by the provider. */
  client: Notifications;
  children: ReactNode;
}

export function NotificationsProvider({ client, children }: NotificationsProviderProps) {
  useEffect(() => {
    client.start();
    return () => client.stop();
  }, [client]);
  return <NotificationsContext value={client}>{children}</NotificationsContext>;
}

/** The client given to the nearest `NotificationsProvider`. */
export function useNotificationsClient(): Notifications {
  const client = use(NotificationsContext);
  if (!client) throw new Error("useNotifications needs a <NotificationsProvider> above it");
  return client;
}

const everything = (state: NotificationsState): unknown => state;

/** The inbox, or the part of it that `select` picks; renders again only when that part changes. */
export function useNotifications(): NotificationsState;
export function useNotifications<Part>(select: (state: NotificationsState) => Part): Part;
export function useNotifications(select: (state: NotificationsState) => unknown = everything) {
  const client = useNotificationsClient();
  const read = () => select(client.getState());
  return useSyncExternalStore(client.subscribe, read, read);
}
