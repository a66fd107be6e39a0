"""Drives a real agent through a real clawd. Runs in a network of its own: see real-agents.sh.

usage: run.py CLAWD claude|codex PROGRAM [STORY…]
"""

import importlib
import sys
import traceback

import anthropic
import openai
import stories
import world

APIS = {"claude": anthropic, "codex": openai}


def main(clawd, provider, program, *chosen):
    """Plays every story on a daemon of its own; returns how many failed."""
    world.raise_loopback()
    api = APIS[provider].start()
    played = [*stories.STORIES, *importlib.import_module(provider).STORIES]
    played = [story for story in played if not chosen or story.__name__ in chosen]
    failed = 0
    for story in played:
        here = world.World(clawd, provider, program, api)
        try:
            here.start()
            story(here, provider)
            here.end()
            world.no_agent_is_left()
            print(f"ok      {provider} {story.__name__}", flush=True)
        except Exception:  # a story that fails in any way has failed; the others are still played
            failed += 1
            print(f"FAILED  {provider} {story.__name__}\n{traceback.format_exc()}", flush=True)
            print(f"the daemon said:\n{here.said()}", flush=True)
        finally:
            here.clear()
    print(f"{len(played) - failed} passed, {failed} failed")
    return failed


if __name__ == "__main__":
    sys.exit(1 if main(*sys.argv[1:]) else 0)
