const MAX_ADDRESS = 2_048;

/** Invisible, turned around, or read by browsers as something else, as a backslash is. */
const UNSAFE =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is refused
  /[\x00-\x1f\x7f-\x9f\\\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]|^\s|\s$/;
/** No userinfo: `https://bank.example@evil.example` leads to the second. */
const SECURE = /^https:\/\/(?:\[[0-9a-f:.]+\]|[^\s/?#@:[\]<>"^`{|}%]+)(?::[0-9]{1,5})?(?:[/?#]|$)/i;
const RELATIVE = /^(?:\/(?!\/)|[?#])/;

/** `address` if a button may lead there, by the server's own rule: this site, or https. */
export function safeHref(address: unknown): string | undefined {
  if (typeof address !== "string" || address.length > MAX_ADDRESS) return undefined;
  if (UNSAFE.test(address)) return undefined;
  return RELATIVE.test(address) || SECURE.test(address) ? address : undefined;
}
