-- Of several polygons of an account the largest is its place, the lowest and then the westernmost among equals. Accounts that are stacked on one
-- polygon have the same place.
select distinct on (c.acct) c.acct, c.latitude, c.longitude, (count(*) over (partition by c.acct))::integer as polygons
  from {parcel_centroid} c
 where c.latitude is not null and c.longitude is not null and exists (select 1 from {real_acct} r where r.acct = c.acct)
 order by c.acct, c.area desc nulls last, c.y, c.x
