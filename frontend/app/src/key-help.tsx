import { useState } from "react";
import { KEYS, keysAreOn, turnKeys } from "./card-keys.ts";
import { Sheet } from "./sheet.tsx";

/** Which keys there are, and whether single ones are listened to. */
export function KeyHelp({ onClose }: { onClose: () => void }) {
  const [on, setOn] = useState(keysAreOn);
  return (
    <Sheet title="Keys" onClose={onClose}>
      <dl className="keys">
        {KEYS.map(([keys, does]) => (
          <div key={does}>
            <dt>
              {keys.map((key) => (
                <kbd key={key}>{key}</kbd>
              ))}
            </dt>
            <dd>{does}</dd>
          </div>
        ))}
      </dl>
      <label className="check">
        <input
          type="checkbox"
          checked={on}
          onChange={({ target }) => {
            turnKeys(target.checked);
            setOn(target.checked);
          }}
        />
        Listen to single keys
      </label>
    </Sheet>
  );
}
