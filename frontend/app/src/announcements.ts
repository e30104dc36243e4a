type Listener = (text: string) => void;

const listeners = new Set<Listener>();

/** Tells who listens instead of looking what has become of what they did. */
export function announce(text: string): void {
  for (const listener of listeners) listener(text);
}

export function onAnnouncement(listener: Listener): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}
