def test_x(world, published):
    print(published.currents(), published.hashes())
    before = world.last_attempt(); m = world.mark()
    d = world.run("--source", "hcad")
    print(d)
    print(world.families(before), world.asked(m), world.leftovers())
