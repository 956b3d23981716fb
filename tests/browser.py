"""A headless Chromium for the report's tests: opened on a file, with its console, its requests and its prints.

Debian's packages chromium and chromium-driver, driven by selenium; where one of the three is missing the tests are
skipped and say how to install it.
"""

import base64
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
  "--headless=new",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
)


def missing() -> str:
  """Returns what the machine lacks and how to install it, or nothing."""
  lacks = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
  if lacks:
    return f"no {' and no '.join(lacks)} on the PATH; on Debian: apt-get install chromium chromium-driver"
  try:
    import selenium  # noqa: F401
  except ImportError:
    return 'selenium is not installed; pip install -e ".[test]"'
  return ""


class Browser:
  """One window. `driver` is selenium's; what the page printed to its console stays until `errors` is called."""

  def __init__(self, driver: Any):
    self.driver = driver

  def look(self, width: int = 1280, height: int = 900, *, dark: bool = False) -> None:
    """Sets the window's size in CSS pixels, and light or dark."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    look = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": look})

  def open(self, file: Path) -> None:
    """Opens a page and waits until its charts are drawn."""
    from selenium.webdriver.support.ui import WebDriverWait

    self.driver.get(file.resolve().as_uri())
    WebDriverWait(self.driver, 60).until(lambda _: self.run("return performance.getEntriesByName('drawn').length"))

  def run(self, script: str, *arguments: Any) -> Any:
    """Returns what a script returns."""
    return self.driver.execute_script(script, *arguments)

  def find(self, selector: str) -> Any:
    """Returns the first element of a CSS selector, in the middle of the window."""
    element = self.driver.find_element("css selector", selector)
    self.run("arguments[0].scrollIntoView({block: 'center'})", element)
    return element

  def press(self, key: str, *, shift: bool = False) -> None:
    """Presses a key wherever the focus is."""
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    chain = ActionChains(self.driver)
    (chain.key_down(Keys.SHIFT).send_keys(key).key_up(Keys.SHIFT) if shift else chain.send_keys(key)).perform()

  def errors(self) -> list[str]:
    """Returns what the console holds since the last call: errors and warnings."""
    return [entry["message"] for entry in self.driver.get_log("browser")]

  def requests(self) -> list[str]:
    """Returns the addresses asked for since the last call."""
    events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
    return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]

  def print(self) -> bytes:
    """Returns the page as PDF."""
    settings = {"printBackground": True, "preferCSSPageSize": True}
    return base64.b64decode(self.driver.execute_cdp_cmd("Page.printToPDF", settings)["data"])

  def main_thread_s(self) -> float:
    """Returns the CPU seconds that the page's main thread has used since it was opened."""
    metrics = self.driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    return float(next(entry["value"] for entry in metrics if entry["name"] == "TaskDuration"))


@contextmanager
def browser() -> Iterator[Browser]:
  """Yields a browser with a fresh profile, and ends it."""
  from selenium import webdriver
  from selenium.webdriver.chrome.service import Service

  with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
      options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(shutil.which("chromedriver"))))
    try:
      driver.set_page_load_timeout(120)
      driver.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
      yield Browser(driver)
    finally:
      driver.quit()


needs_browser = pytest.mark.skipif(bool(missing()), reason=missing() or "there is a browser")
