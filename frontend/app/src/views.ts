/** The paths of the views; the server answers each with the page. */

export const INBOX = "/";
export const PREFERENCES = "/preferences";
