"""Ray's environment and token, which it reads when it is imported. Import it before whatever imports Ray."""

from cluster import session
from cluster.config import Settings

session.prepare(Settings())
