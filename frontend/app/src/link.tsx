import type { ComponentProps, MouseEvent } from "react";
import { navigate } from "./location.ts";

/** A link to another view of this page; with a modifier key the browser opens it where asked. */
export function Link({ href, ...props }: ComponentProps<"a"> & { href: string }) {
  function follow(event: MouseEvent) {
    if (event.button !== 0) return;
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    navigate(href);
  }
  return <a {...props} href={href} onClick={follow} />;
}
