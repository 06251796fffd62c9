/** The few things a card does to the page. Nothing from a run is ever set as HTML. */

export function add<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  className: string,
  parent: HTMLElement,
  text = ''
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  parent.appendChild(element);
  return element;
}

export function button(className: string, parent: HTMLElement, text: string, onClick: () => void): HTMLButtonElement {
  const element = add('button', className, parent, text);
  element.type = 'button';
  element.addEventListener('click', event => {
    event.stopPropagation(); // a click must not put the notebook into edit mode
    onClick();
  });
  return element;
}

/** Writing the same text again would drop a selection and wake the screen reader. */
export function say(element: HTMLElement, text: string): void {
  if (element.textContent !== text) {
    element.textContent = text;
  }
}

export function show(element: HTMLElement, visible: boolean): void {
  element.hidden = !visible;
}

/** Makes the children of `parent` as many as the texts, and writes them. */
export function sayAll(parent: HTMLElement, tag: 'span', texts: readonly string[]): void {
  while (parent.children.length > texts.length) {
    parent.lastElementChild!.remove();
  }
  texts.forEach((text, i) => say((parent.children[i] as HTMLElement | undefined) ?? add(tag, '', parent), text));
}

export async function copy(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false; // no permission, or a page without TLS
  }
}
