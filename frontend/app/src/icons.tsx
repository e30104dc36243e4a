import type { ReactNode } from "react";

function Icon({ children }: { children: ReactNode }) {
  return (
    <svg
      className="icon"
      viewBox="0 0 20 20"
      width="20"
      height="20"
      fill="none"
      stroke="currentColor"
      strokeWidth="1.6"
      strokeLinecap="round"
      strokeLinejoin="round"
      aria-hidden="true"
    >
      {children}
    </svg>
  );
}

export const BellIcon = () => (
  <Icon>
    <path d="M4.2 14.2h11.6c-1.1-1.2-1.7-2.6-1.7-4.3V8a4.1 4.1 0 0 0-8.2 0v1.9c0 1.7-.6 3.1-1.7 4.3Z" />
    <path d="M8.4 16.8h3.2" />
  </Icon>
);

export const PlusIcon = () => (
  <Icon>
    <path d="M10 4.5v11M4.5 10h11" />
  </Icon>
);

export const CloseIcon = () => (
  <Icon>
    <path d="m5.5 5.5 9 9M14.5 5.5l-9 9" />
  </Icon>
);

export const ArrowIcon = () => (
  <Icon>
    <path d="M7 13 13 7M8 7h5v5" />
  </Icon>
);

export const CheckIcon = () => (
  <Icon>
    <path d="m5 10.5 3.3 3.3L15 6.8" />
  </Icon>
);

export const MarkReadIcon = () => (
  <Icon>
    <path d="m3.5 10.6 3 3L12.7 7M9.6 13l.6.6L16.5 7" />
  </Icon>
);

export const MarkUnreadIcon = () => (
  <Icon>
    <path d="M3.5 5.5h8M16.5 9.5v5.4H3.5V5.5m0 .7 6.5 4.6 3-2.1" />
    <circle cx="15.6" cy="5.4" r="1.9" fill="currentColor" />
  </Icon>
);

export const BinIcon = () => (
  <Icon>
    <path d="M4 5.8h12M8 5.6V4h4v1.6M5.6 5.8l.6 10.2h7.6l.6-10.2M8.6 8.8v4.4M11.4 8.8v4.4" />
  </Icon>
);

export const PhoneIcon = () => (
  <Icon>
    <path d="M6 3h8v14H6zM9 14.5h2" />
  </Icon>
);

export const BrowserIcon = () => (
  <Icon>
    <path d="M3 4.5h14v11H3zM3 7.8h14M5.4 6.2h.1M7.6 6.2h.1" />
  </Icon>
);

export const PushIcon = () => (
  <Icon>
    <path d="M7 3h6v14H7zM9.2 14.6h1.6M4.4 7.2a4 4 0 0 0 0 5.6M15.6 7.2a4 4 0 0 1 0 5.6" />
  </Icon>
);

export const SlidersIcon = () => (
  <Icon>
    <path d="M3.5 6.5h7.2M14.9 6.5h1.6M3.5 13.5h1.6M9.3 13.5h7.2" />
    <circle cx="12.8" cy="6.5" r="2.1" />
    <circle cx="7.2" cy="13.5" r="2.1" />
  </Icon>
);

const TYPE_ICONS: Readonly<Record<string, ReactNode>> = {
  system: <path d="M3.5 4.5h13v8.5h-13zM7.5 16h5M10 13v3" />,
  user: (
    <path d="M10 9.5a2.8 2.8 0 1 0 0-5.6 2.8 2.8 0 0 0 0 5.6ZM4.5 16.2c.5-2.6 2.7-4.2 5.5-4.2s5 1.6 5.5 4.2" />
  ),
  task: <path d="M4 4h12v12H4zM7.2 10.2l2 2 3.8-4.2" />,
  security: <path d="M10 3.2 15.5 5v4.6c0 3.3-2.2 5.9-5.5 7.2-3.3-1.3-5.5-3.9-5.5-7.2V5z" />,
  billing: <path d="M3.2 5h13.6v10H3.2zM3.2 8.4h13.6M6 12.2h3" />,
  workflow: (
    <path d="M6 7.4a1.9 1.9 0 1 0 0-3.8 1.9 1.9 0 0 0 0 3.8ZM6 16.4a1.9 1.9 0 1 0 0-3.8 1.9 1.9 0 0 0 0 3.8ZM14 9.4a1.9 1.9 0 1 0 0-3.8 1.9 1.9 0 0 0 0 3.8ZM6 7.4v5.2M14 9.4c0 2.3-2.4 2.6-5 3.4" />
  ),
  agent: (
    <path d="M9 3.5c.5 3.7 1.8 5 5.5 5.5-3.7.5-5 1.8-5.5 5.5-.5-3.7-1.8-5-5.5-5.5 3.7-.5 5-1.8 5.5-5.5ZM15.2 12.8c.2 1.5.8 2.1 2.3 2.3-1.5.2-2.1.8-2.3 2.3-.2-1.5-.8-2.1-2.3-2.3 1.5-.2 2.1-.8 2.3-2.3Z" />
  ),
};

export const TypeIcon = ({ type }: { type: string }) => (
  <Icon>{TYPE_ICONS[type] ?? TYPE_ICONS["system"]}</Icon>
);
