// React: the client of a tree, and page views.

"use client";

import { createContext, createElement, useContext, useEffect, useRef, type ReactNode } from "react";
import { analytics } from "./index";
import type { Analytics, Values } from "./types";

const Context = createContext<Analytics>(analytics);

/** Give the components below another client than the default one. */
export function AnalyticsProvider(props: { client: Analytics; children?: ReactNode }) {
  return createElement(Context.Provider, { value: props.client }, props.children);
}

/** Return the client: the default one, or that of the nearest `AnalyticsProvider`. */
export function useAnalytics(): Analytics {
  return useContext(Context);
}

/** Send a `page` event when the component appears, and again when *name* changes. */
export function usePage(name?: string, properties?: Values): void {
  const client = useAnalytics();
  const seen = useRef<[client: Analytics, name?: string] | null>(null);
  useEffect(() => {
    const [before, nameBefore] = seen.current || [];
    seen.current = [client, name];
    // React's strict mode runs effects twice.
    if (client != before || name != nameBefore) client.page(name, properties);
  }, [client, name]);
}
