"""A patch for `serving`: each image takes 20 ms in the engine, without using the processor.

Several such servers fit on a small machine, and each has the same capacity of nearly 50 images a second.
"""

SLOW_ENGINE = """
import time
from service.engine.engine import Engine
run = Engine.run
def slow(self, images, *names, **options):
    time.sleep(0.02 * len(images))
    return run(self, images, *names, **options)
Engine.run = slow
"""
