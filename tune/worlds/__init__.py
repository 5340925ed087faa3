from tune.worlds.build import build as build
